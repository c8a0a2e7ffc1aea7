// The arithmetic decoder for WebAssembly: a C interface whose numbers have 32 bits and whose functions never throw.
//
// A session decodes one payload: open it, fill its payload, read quantization parameters and tensors in their order,
// finish, close. It owns all buffers, so that no caller can hand over one of the wrong size.
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "decoder.hpp"

namespace {

// What src/engine.ts makes errors of.
enum Status : std::int32_t { kDone, kDamaged, kTruncated, kRefused, kOutOfMemory };

constexpr std::uint64_t kLargestBuffer = std::numeric_limits<std::int32_t>::max();

// Elements that are not initialised; none where there is no memory for them.
template <class T>
struct Array {
    Array() = default;
    explicit Array(std::uint64_t elements) {
        if (elements > kLargestBuffer / sizeof(T)) throw std::bad_alloc();  // also what is beyond the address space
        data.reset(new T[elements]);
        count = elements;
    }

    // What is taken out of a session; `expected` elements, or none.
    Array taken(std::uint64_t expected) {
        if (data && count != expected) throw std::invalid_argument("a buffer of another size than the tensor");
        return std::move(*this);
    }

    std::unique_ptr<T[]> data;
    std::uint64_t count = 0;
};

struct EntryPoint {
    std::uint32_t bit_offset, cabac_offset, dq_state;
};

struct Session {
    explicit Session(std::uint32_t payload_size) : payload(payload_size) {}

    nnc::Decoder& begun() {
        if (!decoder) decoder = std::make_unique<nnc::Decoder>(payload.data.get(), payload.count);
        return *decoder;
    }

    Array<std::uint8_t> payload, history;
    std::unique_ptr<nnc::Decoder> decoder;
    Array<std::int32_t> levels, base;
    std::vector<EntryPoint> entry_points;
    nnc::Choices choices;
    std::int32_t number = 0;
    std::string message;
};

template <class Work>
Status guarded(Session& session, Work&& work) {
    Status status = kRefused;
    try {
        work();
        return kDone;
    } catch (const nnc::TruncatedCodewordError& error) {
        session.message = error.what();
        status = kTruncated;
    } catch (const nnc::CodewordError& error) {
        session.message = error.what();
        status = kDamaged;
    } catch (const std::bad_alloc&) {
        status = kOutOfMemory;
    } catch (const std::exception& error) {
        session.message = error.what();
    }
    return status;
}

std::uint32_t narrowed(std::int64_t offset) {
    constexpr std::int64_t most = std::numeric_limits<std::uint32_t>::max();
    return static_cast<std::uint32_t>(offset < most ? offset : most);  // the header cannot say that much either
}

nnc::Parameters checked(std::uint32_t rows, std::uint32_t width, std::int32_t general_profile_idc,
                        std::int32_t cabac_unary_length_minus1, bool dq_flag, std::int32_t scan_order,
                        bool parent_node_id_present_flag, std::uint32_t codebook_size,
                        std::uint32_t codebook_zero_offset) {
    if (general_profile_idc < 0 || general_profile_idc > 1) throw std::invalid_argument("general_profile_idc");
    if (cabac_unary_length_minus1 < 0 || cabac_unary_length_minus1 > 255)
        throw std::invalid_argument("cabac_unary_length_minus1");
    if (scan_order < 0 || scan_order > 4) throw std::invalid_argument("scan_order");
    if (codebook_size > 0 && codebook_zero_offset >= codebook_size) throw std::invalid_argument("codebook_zero_offset");
    nnc::Parameters p;
    p.rows = rows;
    p.width = width;
    p.general_profile_idc = general_profile_idc;
    p.cabac_unary_length_minus1 = cabac_unary_length_minus1;
    p.dq_flag = dq_flag;
    p.scan_order = scan_order;
    p.parent_node_id_present_flag = parent_node_id_present_flag;
    p.codebook_size = codebook_size;
    p.codebook_zero_offset = codebook_zero_offset;
    return p;
}

}  // namespace

#define NNC_EXPORT(type) extern "C" [[gnu::visibility("default"), gnu::used]] type

// A session for a payload of so many bytes; null where there is no memory for it.
NNC_EXPORT(Session*) nnc_open(std::uint32_t payload_size) {
    try {
        return new Session(payload_size);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

NNC_EXPORT(void) nnc_close(Session* session) { delete session; }

NNC_EXPORT(std::uint8_t*) nnc_payload(Session* session) { return session->payload.data.get(); }

// What was wrong in the last call: zero-terminated text.
NNC_EXPORT(const char*) nnc_message(const Session* session) { return session->message.c_str(); }

// Room for the co-located levels of the next tensor, and for its history; null where there is no memory for it.
NNC_EXPORT(std::int32_t*) nnc_base(Session* session, std::uint32_t count) {
    guarded(*session, [&] { session->base = Array<std::int32_t>(count); });
    return session->base.data.get();
}

NNC_EXPORT(std::uint8_t*) nnc_history(Session* session, std::uint32_t count) {
    guarded(*session, [&] { session->history = Array<std::uint8_t>(count); });
    return session->history.data.get();
}

// Read a signed number of so many equiprobable bins; `nnc_number` has it.
NNC_EXPORT(std::int32_t) nnc_iae(Session* session, std::int32_t bits) {
    return guarded(*session, [&] { session->number = static_cast<std::int32_t>(session->begun().iae(bits)); });
}

NNC_EXPORT(std::int32_t) nnc_number(const Session* session) { return session->number; }

// Read a tensor of rows * width levels. The history and co-located levels that were given count for this tensor only.
NNC_EXPORT(std::int32_t)
nnc_tensor(Session* session, std::uint32_t rows, std::uint32_t width, std::int32_t general_profile_idc,
           std::int32_t cabac_unary_length_minus1, std::int32_t dq_flag, std::int32_t scan_order,
           std::int32_t parent_node_id_present_flag, std::uint32_t codebook_size, std::uint32_t codebook_zero_offset) {
    return guarded(*session, [&] {
        nnc::Parameters p = checked(rows, width, general_profile_idc, cabac_unary_length_minus1, dq_flag != 0,
                                    scan_order, parent_node_id_present_flag != 0, codebook_size, codebook_zero_offset);
        const std::uint64_t count = std::uint64_t{rows} * width;
        const auto base = session->base.taken(count);
        const auto history = session->history.taken(count);
        p.base = base.data.get();
        p.history = history.data.get();
        session->entry_points.clear();
        session->levels = {};  // before the next one: there may be no room for both
        session->levels = Array<std::int32_t>(count);
        std::vector<nnc::EntryPoint> passed;
        session->choices = session->begun().tensor(p, session->levels.data.get(), passed);
        for (const nnc::EntryPoint& point : passed)
            session->entry_points.push_back({narrowed(point.bit_offset), static_cast<std::uint32_t>(point.cabac_offset),
                                             static_cast<std::uint32_t>(point.dq_state)});
    });
}

NNC_EXPORT(const std::int32_t*) nnc_levels(const Session* session) { return session->levels.data.get(); }

// The last tensor's levels in the same place as the values that they stand for, float32; the levels are gone then.
NNC_EXPORT(const float*) nnc_scaled(Session* session, float step) {
    std::int32_t* const levels = session->levels.data.get();
    for (std::uint64_t i = 0; i < session->levels.count; ++i)
        levels[i] = __builtin_bit_cast(std::int32_t, step* static_cast<float>(levels[i]));
    return reinterpret_cast<const float*>(levels);
}

// Whether the last tensor uses the history of the updates before.
NNC_EXPORT(std::int32_t) nnc_uses_history(const Session* session) {
    return session->choices.hist_dep_sig_prob_enabled_flag;
}

// The entry points that were passed in the last tensor, as triples: bit offset, cabac_offset, dq_state.
NNC_EXPORT(std::uint32_t) nnc_entry_point_count(const Session* session) {
    return static_cast<std::uint32_t>(session->entry_points.size());
}

NNC_EXPORT(const EntryPoint*) nnc_entry_points(const Session* session) { return session->entry_points.data(); }

// Check the end of the codeword; `nnc_number` has its bytes.
NNC_EXPORT(std::int32_t) nnc_finish(Session* session) {
    return guarded(*session, [&] { session->number = static_cast<std::int32_t>(session->begun().finish()); });
}
