// Work on numbered pieces that are independent of each other, shared by several threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace nnc {

// Whether `work(i)` is true for all i below `count`; after one that is false, or throws, no more are begun.
template <class Work>
bool in_threads(std::int64_t count, int threads, Work&& work) {
    std::atomic<std::int64_t> next = 0;
    std::atomic<bool> good = true;
    const auto run = [&] {
        try {
            for (std::int64_t i = next++; i < count && good; i = next++)
                if (!work(i)) good = false;
        } catch (const std::exception&) {
            good = false;
        }
    };
    std::vector<std::thread> others;
    try {
        for (int i = 1; i < threads && i < count; ++i) others.emplace_back(run);
    } catch (const std::system_error&) {  // no more threads are to be had: these do
    }
    run();
    for (std::thread& other : others) other.join();
    return good;
}

}  // namespace nnc
