// The numpy-level interface of the native code; documented in nnc_core/_native.pyi.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <mutex>
#include <optional>
#include <tuple>

#include "calibrated.hpp"
#include "decoder.hpp"
#include "encoder.hpp"
#include "quantizer.hpp"
#include "trellis.hpp"

namespace nb = nanobind;
using namespace nnc;

namespace {

template <class T>
using Matrix = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using Vector = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Entry = std::tuple<std::int64_t, int, int>;

// Parameters together with the arrays they point into.
struct TensorParameters {
    Parameters p;
    std::optional<Matrix<const std::int32_t>> base;
    std::optional<Matrix<const std::uint8_t>> history;

    TensorParameters(std::int64_t rows, std::int64_t width, int profile, int unary, bool dq, int scan, bool parent,
                     std::int64_t codebook_size, std::int64_t codebook_zero_offset,
                     std::optional<Matrix<const std::int32_t>> base_, std::optional<Matrix<const std::uint8_t>> hist)
        : base(std::move(base_)), history(std::move(hist)) {
        p = {rows, width, profile, unary, dq, scan, parent, codebook_size, codebook_zero_offset, nullptr, nullptr};
        if (rows < 0 || width < 0) throw std::invalid_argument("a tensor has no negative dimensions");
        if (unary < 0 || unary > 255) throw std::invalid_argument("cabac_unary_length_minus1 lies in 0..255");
        if (scan < 0 || scan > 4) throw std::invalid_argument("scan_order lies in 0..4");
        if (codebook_size < 0 || codebook_zero_offset < 0 ||
            (codebook_size > 0 && codebook_zero_offset >= codebook_size))
            throw std::invalid_argument("codebook_zero_offset lies inside the codebook");
        p.base = base ? checked(*base) : nullptr;
        p.history = history ? checked(*history) : nullptr;
    }

    template <class T>
    T* checked(const Matrix<T>& array) const {
        if (static_cast<std::int64_t>(array.shape(0)) != p.rows || static_cast<std::int64_t>(array.shape(1)) != p.width)
            throw std::invalid_argument("base and history have the shape of the levels");
        return array.data();
    }
};

Choices make_choices(bool row_skip, bool history, std::optional<nb::bytes> shift_indices) {
    Choices choices{row_skip, history, {}};
    if (shift_indices) {
        const auto* begin = static_cast<const std::uint8_t*>(shift_indices->data());
        choices.shift_indices.assign(begin, begin + shift_indices->size());
    }
    return choices;
}

nb::bytes to_bytes(const std::vector<std::uint8_t>& data) { return nb::bytes(data.data(), data.size()); }

std::vector<Entry> to_tuples(const std::vector<EntryPoint>& points) {
    std::vector<Entry> list;
    for (const EntryPoint& point : points) list.emplace_back(point.bit_offset, point.cabac_offset, point.dq_state);
    return list;
}

// Coding runs without the interpreter lock, so that coders have locks of their own. Whoever holds one never waits for
// the interpreter lock.
struct LockedEncoder {
    Encoder encoder;
    std::mutex mutex;
};

// A decoder together with the payload it reads.
struct PayloadDecoder {
    Vector<const std::uint8_t> payload;
    Decoder decoder;
    std::mutex mutex;
    explicit PayloadDecoder(Vector<const std::uint8_t> data)
        : payload(std::move(data)), decoder(payload.data(), payload.size()) {}
};

void encode_tensor(LockedEncoder& self, const TensorParameters& t, Matrix<const std::int32_t> levels, bool row_skip,
                   bool history, std::optional<nb::bytes> shift_indices, int threads) {
    const std::int32_t* data = t.checked(levels);
    const Choices choices = make_choices(row_skip, history, shift_indices);
    nb::gil_scoped_release release;
    const std::lock_guard lock(self.mutex);
    self.encoder.tensor(t.p, choices, data, threads);
}

nb::bytes choose_shift_indices(const TensorParameters& t, Matrix<const std::int32_t> levels, bool row_skip,
                               bool history, int threads, bool sampled) {
    const std::int32_t* data = t.checked(levels);
    const Choices choices = make_choices(row_skip, history, std::nullopt);
    std::vector<std::uint8_t> indices;
    {
        nb::gil_scoped_release release;
        indices = shift_indices(t.p, choices, data, threads, sampled);
    }
    return to_bytes(indices);
}

auto choose_shift_candidates(const TensorParameters& t, Matrix<const std::int32_t> levels, bool row_skip,
                             bool history) {
    const std::int32_t* data = t.checked(levels);
    const Choices choices = make_choices(row_skip, history, std::nullopt);
    ShiftCandidates found;
    {
        nb::gil_scoped_release release;
        found = shift_candidates(t.p, choices, data);
    }
    return std::make_tuple(to_bytes(found.indices), found.with, found.without);
}

// A payload that is one tensor.
struct Coded {
    std::vector<std::uint8_t> payload;
    std::vector<EntryPoint> entry_points;
    std::vector<std::uint8_t> shift_indices;
};

Coded code_one(const Parameters& p, const std::int32_t* levels, std::optional<std::int64_t> qp, int qp_bits,
               const Choices& choices, int threads) {
    Encoder encoder;
    if (qp) encoder.iae(*qp, qp_bits);
    encoder.tensor(p, choices, levels, threads);
    std::vector<std::uint8_t> payload = encoder.finish();
    return {std::move(payload), encoder.entry_points().front(), choices.shift_indices};
}

// What takes calls for a payload of several tensors, in one; the shorter one with the shift indices that can be best.
Coded code_shortest(const Parameters& p, const std::int32_t* levels, std::optional<std::int64_t> qp, int qp_bits,
                    Choices choices, bool optimised, int threads) {
    ShiftCandidates found{{}, false, true};
    if (optimised) found = shift_candidates(p, choices, levels, threads);
    Coded plain, best;
    if (found.without) plain = code_one(p, levels, qp, qp_bits, choices, threads);
    if (!found.with) return plain;
    choices.shift_indices = std::move(found.indices);
    best = code_one(p, levels, qp, qp_bits, choices, threads);
    return found.without && plain.payload.size() <= best.payload.size() ? plain : best;
}

auto encode_one(const TensorParameters& t, Matrix<const std::int32_t> levels, std::optional<std::int64_t> qp,
                int qp_bits, bool row_skip, bool history, bool optimised, int threads) {
    const std::int32_t* data = t.checked(levels);
    const Choices choices = make_choices(row_skip, history, std::nullopt);
    Coded coded;
    bool zero_rows = false;
    {
        nb::gil_scoped_release release;
        coded = code_shortest(t.p, data, qp, qp_bits, choices, optimised, threads);
        zero_rows = has_zero_rows(t.p, data);
    }
    return std::make_tuple(to_bytes(coded.payload), to_tuples(coded.entry_points), to_bytes(coded.shift_indices),
                           zero_rows);
}

std::vector<EntryPoint> to_points(const std::vector<Entry>& entries) {
    std::vector<EntryPoint> points;
    for (const auto& [bit_offset, cabac_offset, dq_state] : entries)
        points.push_back({bit_offset, cabac_offset, dq_state});
    return points;
}

auto decode_tensor(PayloadDecoder& self, const TensorParameters& t, Matrix<std::int32_t> levels,
                   const std::vector<Entry>& entry_points, int threads) {
    std::int32_t* data = t.checked(levels);
    const std::vector<EntryPoint> told = to_points(entry_points);
    std::vector<EntryPoint> points;
    Choices choices;
    {
        nb::gil_scoped_release release;
        const std::lock_guard lock(self.mutex);
        choices = self.decoder.tensor(t.p, data, points, told, threads);
    }
    return std::make_tuple(choices.row_skip_enabled_flag, choices.hist_dep_sig_prob_enabled_flag,
                           to_bytes(choices.shift_indices), to_tuples(points));
}

auto decode_one(Vector<const std::uint8_t> payload, const TensorParameters& t, Matrix<std::int32_t> levels, int qp_bits,
                const std::vector<Entry>& entry_points, int threads) {
    std::int32_t* data = t.checked(levels);
    const std::vector<EntryPoint> told = to_points(entry_points);
    Decoder decoder(payload.data(), payload.size());
    std::vector<EntryPoint> points;
    Choices choices;
    std::int64_t qp = 0, consumed = 0;
    {
        nb::gil_scoped_release release;
        if (qp_bits) qp = decoder.iae(qp_bits);
        choices = decoder.tensor(t.p, data, points, told, threads);
        consumed = decoder.finish();
    }
    return std::make_tuple(qp, choices.row_skip_enabled_flag, choices.hist_dep_sig_prob_enabled_flag,
                           to_bytes(choices.shift_indices), to_tuples(points), consumed);
}

void require_equal_sizes(std::size_t a, std::size_t b) {
    if (a != b) throw std::invalid_argument("values and levels have the same size");
}

Parameters quantized_shape(const Matrix<const float>& values, const Matrix<std::int32_t>& levels, int scan_order,
                           int cabac_unary_length_minus1) {
    if (values.shape(0) != levels.shape(0) || values.shape(1) != levels.shape(1))
        throw std::invalid_argument("values and levels have the same shape");
    if (scan_order < 0 || scan_order > 4) throw std::invalid_argument("scan_order lies in 0..4");
    if (cabac_unary_length_minus1 < 0 || cabac_unary_length_minus1 > 255)
        throw std::invalid_argument("cabac_unary_length_minus1 lies in 0..255");
    Parameters p;
    p.rows = static_cast<std::int64_t>(values.shape(0));
    p.width = static_cast<std::int64_t>(values.shape(1));
    p.scan_order = scan_order;
    p.cabac_unary_length_minus1 = cabac_unary_length_minus1;
    return p;
}

RateOptions rate_options(double lambda, std::optional<nb::bytes> shift_indices) {
    if (!(lambda >= 0 && lambda <= 1e6)) throw std::invalid_argument("lambda lies in 0..1e6");
    return {lambda, make_choices(false, false, std::move(shift_indices)).shift_indices};
}

bool uniform(Matrix<const float> values, float step, int scan_order, double lambda, int unary,
             std::optional<nb::bytes> shift_indices, Matrix<std::int32_t> levels) {
    const Parameters p = quantized_shape(values, levels, scan_order, unary);
    const RateOptions rates = rate_options(lambda, std::move(shift_indices));
    nb::gil_scoped_release release;
    return quantize_uniform(values.data(), p, step, rates, levels.data());
}

bool dependent(Matrix<const float> values, float step, int scan_order, double lambda, int unary,
               std::optional<nb::bytes> shift_indices, Matrix<std::int32_t> levels) {
    const Parameters p = quantized_shape(values, levels, scan_order, unary);
    const RateOptions rates = rate_options(lambda, std::move(shift_indices));
    nb::gil_scoped_release release;
    return quantize_dependent(values.data(), p, step, rates, levels.data());
}

bool calibrated(Matrix<const float> values, float step, Matrix<const float> factor, Vector<const double> importance,
                bool input_first, bool dq_flag, double lambda, int unary, std::optional<nb::bytes> shift_indices,
                Matrix<std::int32_t> levels) {
    Parameters p = quantized_shape(values, levels, 0, unary);
    p.dq_flag = dq_flag;
    const std::size_t inputs = values.shape(input_first ? 0 : 1), groups = inputs ? factor.shape(0) / inputs : 0;
    if (factor.shape(1) != inputs || groups == 0 || factor.shape(0) != groups * inputs ||
        importance.size() != groups * inputs)
        throw std::invalid_argument("factor and importance have as many columns as the matrix has inputs");
    if (values.shape(0) % groups || (input_first && groups > 1))
        throw std::invalid_argument("the rows form as many groups as there are factors");
    const RateOptions rates = rate_options(lambda, std::move(shift_indices));
    nb::gil_scoped_release release;
    const auto quantize = input_first ? quantize_calibrated_columns : quantize_calibrated;
    const Calibration calibration{factor.data(), importance.data(), static_cast<std::int64_t>(groups)};
    return quantize(values.data(), p, step, calibration, rates, levels.data());
}

void reconstruct_into(Vector<const std::int32_t> levels, float step, Vector<float> values) {
    require_equal_sizes(values.size(), levels.size());
    nb::gil_scoped_release release;
    reconstruct(levels.data(), levels.size(), step, values.data());
}

void replace_levels(Vector<std::int32_t> levels, float step) {
    nb::gil_scoped_release release;
    reconstruct_in_place(levels.data(), levels.size(), step);
}

nb::dict tables() {
    nb::list lps, step, sets, next, rates;
    for (const auto& row : kLps)
        for (const auto width : row) lps.append(width);
    for (const int value : kStep) step.append(value);
    for (const ParameterSet& set : kParameterSets) sets.append(nb::make_tuple(set.shift0, set.shift1, set.initial));
    for (const auto& row : kNextState) next.append(nb::make_tuple(row[0], row[1]));
    for (std::size_t t = 0; t < 512; ++t) rates.append(nb::make_tuple(kRates[0][512 + t], kRates[1][512 + t]));
    nb::dict all;
    all["lps"] = lps;
    all["step"] = step;
    all["parameter_sets"] = sets;
    all["next_state"] = next;
    all["rates"] = rates;
    return all;
}

}  // namespace

NB_MODULE(_native, m) {
    const auto error = nb::exception<CodewordError>(m, "CodewordError", PyExc_ValueError);
    nb::exception<TruncatedCodewordError>(m, "TruncatedCodewordError", error);

    nb::class_<TensorParameters>(m, "TensorParameters")
        .def(nb::init<std::int64_t, std::int64_t, int, int, bool, int, bool, std::int64_t, std::int64_t,
                      std::optional<Matrix<const std::int32_t>>, std::optional<Matrix<const std::uint8_t>>>(),
             nb::arg("rows"), nb::arg("width"), nb::arg("general_profile_idc"), nb::arg("cabac_unary_length_minus1"),
             nb::arg("dq_flag"), nb::arg("scan_order"), nb::arg("parent_node_id_present_flag"),
             nb::arg("codebook_size"), nb::arg("codebook_zero_offset"), nb::arg("base") = nb::none(),
             nb::arg("history") = nb::none());

    nb::class_<LockedEncoder>(m, "Encoder")
        .def(nb::init<>())
        .def(
            "iae",
            [](LockedEncoder& self, std::int64_t value, int bits) {
                const std::lock_guard lock(self.mutex);
                self.encoder.iae(value, bits);
            },
            nb::arg("value"), nb::arg("bits"))
        .def("tensor", &encode_tensor, nb::arg("parameters"), nb::arg("levels"), nb::arg("row_skip_enabled_flag"),
             nb::arg("hist_dep_sig_prob_enabled_flag"), nb::arg("shift_indices") = nb::none(), nb::arg("threads") = 1)
        .def("finish",
             [](LockedEncoder& self) {
                 const std::lock_guard lock(self.mutex);
                 return to_bytes(self.encoder.finish());
             })
        .def_prop_ro("entry_points", [](LockedEncoder& self) {
            const std::lock_guard lock(self.mutex);
            std::vector<std::vector<Entry>> lists;
            for (const auto& points : self.encoder.entry_points()) lists.push_back(to_tuples(points));
            return lists;
        });

    nb::class_<PayloadDecoder>(m, "Decoder")
        .def(nb::init<Vector<const std::uint8_t>>(), nb::arg("payload"))
        .def(
            "iae",
            [](PayloadDecoder& self, int bits) {
                const std::lock_guard lock(self.mutex);
                return self.decoder.iae(bits);
            },
            nb::arg("bits"))
        .def("tensor", &decode_tensor, nb::arg("parameters"), nb::arg("levels"),
             nb::arg("entry_points") = std::vector<Entry>(), nb::arg("threads") = 1)
        .def("finish", [](PayloadDecoder& self) {
            const std::lock_guard lock(self.mutex);
            return self.decoder.finish();
        });

    m.def("shift_indices", &choose_shift_indices, nb::arg("parameters"), nb::arg("levels"),
          nb::arg("row_skip_enabled_flag"), nb::arg("hist_dep_sig_prob_enabled_flag"), nb::arg("threads") = 1,
          nb::arg("sampled") = true);
    m.def("shift_candidates", &choose_shift_candidates, nb::arg("parameters"), nb::arg("levels"),
          nb::arg("row_skip_enabled_flag"), nb::arg("hist_dep_sig_prob_enabled_flag"));
    m.def("encode", &encode_one, nb::arg("parameters"), nb::arg("levels"), nb::arg("qp").none(), nb::arg("qp_bits"),
          nb::arg("row_skip_enabled_flag"), nb::arg("hist_dep_sig_prob_enabled_flag"), nb::arg("optimised"),
          nb::arg("threads"));
    m.def("decode", &decode_one, nb::arg("payload"), nb::arg("parameters"), nb::arg("levels"), nb::arg("qp_bits"),
          nb::arg("entry_points"), nb::arg("threads"));
    m.def("quantize_uniform", &uniform, nb::arg("values"), nb::arg("step"), nb::arg("scan_order"), nb::arg("lambda_"),
          nb::arg("cabac_unary_length_minus1"), nb::arg("shift_indices").none(), nb::arg("levels"));
    m.def("quantize_dependent", &dependent, nb::arg("values"), nb::arg("step"), nb::arg("scan_order"),
          nb::arg("lambda_"), nb::arg("cabac_unary_length_minus1"), nb::arg("shift_indices").none(), nb::arg("levels"));
    m.def("quantize_calibrated", &calibrated, nb::arg("values"), nb::arg("step"), nb::arg("factor"),
          nb::arg("importance"), nb::arg("input_first"), nb::arg("dq_flag"), nb::arg("lambda_"),
          nb::arg("cabac_unary_length_minus1"), nb::arg("shift_indices").none(), nb::arg("levels"));
    m.def("force_portable_kernels", &force_portable_kernels, nb::arg("force"));
    m.def("reconstruct", &reconstruct_into, nb::arg("levels"), nb::arg("step"), nb::arg("values"));
    m.def("reconstruct_in_place", &replace_levels, nb::arg("levels"), nb::arg("step"));
    m.def("tables", &tables);
}
