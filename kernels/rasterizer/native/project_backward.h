// Gradients of the records back to Gaussians and cameras; included after project.h.
#pragma once

namespace lrm {
namespace {

// Feature gradients of this size are written past the caches, which could not hold them until they are read.
constexpr size_t kStreamBytes = size_t{4} << 20;

// The gradients of sixteen Gaussians, summed over the views.
struct SixteenGradients {
    Vec3 mean;
    F16 opacity;
    Vec3 shape[3];
};

// Sum the slots of every visible Gaussian of a block; moments[m] holds moment m in sixteen lanes.
static inline void gather_slots(const Context& context, int image, int block, uint32_t visible, F16* moments) {
    const Image& lists = context.image[image];
    const float* gradients = lists.slot_gradients.get<float>();
    const uint8_t* used = lists.slot_used.get<uint8_t>();
    const size_t start = context.block_starts.get<uint32_t>()[static_cast<size_t>(image) * context.blocks + block];
    const size_t bin = static_cast<size_t>(image) * context.chunks + block / kChunkBlocks;
    const uint32_t first_slot = context.bins[bin].first_slot;
    const uint32_t* range = context.record_entries.get<uint32_t>() + 2 * (image * context.records_per_image() + start);
    for (int lane = 0; lane < kLanes; ++lane) {
        moments[lane] = zero();
        if (!(visible >> lane & 1u)) continue;
        const uint32_t begin = first_slot + range[0], end = begin + range[1];
        range += 2;
        // Slots are 48 bytes, so the last four lanes belong to the next one: nobody reads them.
        for (uint32_t slot = begin; slot < end; ++slot)
            if (used[slot]) moments[lane] = moments[lane] + load(gradients + static_cast<size_t>(slot) * kSlotFloats);
    }
    transpose16(moments);
}

// Gradient to the rows u, v of the projected shape, from the moments of sigma's gradient.
static inline void shape_rows_backward(const LrmTask& task, const Sixteen& g, const Projection& p, const F16* m,
                                       F16 opacity_gradient, Vec3& grad_u, Vec3& grad_v) {
    const F16 half = set1(0.5f), two = set1(2.0f);
    // With Q the inverse covariance and G the gradient to it, the gradient to the covariance is -Q G Q.
    const F16 ga = half * m[kSxx], gb = half * m[kSxy], gc = half * m[kSyy];
    const F16 t00 = fma(ga, p.a, gb * p.b), t01 = fma(ga, p.b, gb * p.c);
    const F16 t10 = fma(gb, p.a, gc * p.b), t11 = fma(gb, p.b, gc * p.c);
    F16 c00 = zero() - fma(p.a, t00, p.b * t10);
    F16 c01 = zero() - fma(p.a, t01, p.b * t11);
    F16 c11 = zero() - fma(p.b, t01, p.c * t11);
    Vec3 extra_u = {zero(), zero(), zero()}, extra_v = extra_u;
    if (task.antialiased) {
        const Vec3 n = cross(p.u, p.v);
        const F16 comp_gradient = opacity_gradient * g.opacity;
        const F16 product = sqrt(p.determinant * p.blurred_determinant);
        const F16 k = select(product > zero(), comp_gradient / product);
        extra_u = cross(p.v, k * n), extra_v = cross(k * n, p.u);
        const F16 eps = set1(task.eps2d);
        const F16 d = set1(-0.5f) * comp_gradient * p.compensation / p.blurred_determinant;
        c00 = fma(d, p.v_v + eps, c00), c11 = fma(d, p.u_u + eps, c11), c01 = fnma(d, p.u_v, c01);
    }
    grad_u = add_scaled(add_scaled(extra_u, two * c00, p.u), two * c01, p.v);
    grad_v = add_scaled(add_scaled(extra_v, two * c01, p.u), two * c11, p.v);
}

static inline void add_to(float* sum, F16 value) { store(sum, load(sum) + value); }

// Colour gradients to the SH coefficients (added to `columns_gradient`), the mean and the camera centre.
static inline Vec3 sh_backward(const LrmTask& task, const View& view, const Sixteen& g, const float* columns,
                               Vec3 grad, M16 visible, float* columns_gradient) {
    F16 basis[16], basis_gradient[16], inverse_distance;
    const int count = task.sh_coefficients;
    const Vec3 direction = view_direction(view, g, inverse_distance);
    sh_basis(direction, count, basis);
    const Vec3 color = sh_color(columns, count, basis);
    grad = {select(visible & (color.x > zero()), grad.x), select(visible & (color.y > zero()), grad.y),
            select(visible & (color.z > zero()), grad.z)};
    for (int k = 0; k < count; ++k) {
        const float* s = columns + 3 * kLanes * k;
        basis_gradient[k] = dot({load(s), load(s + kLanes), load(s + 2 * kLanes)}, grad);
        float* out = columns_gradient + 3 * kLanes * k;
        store(out, fma(basis[k], grad.x, load(out)));
        store(out + kLanes, fma(basis[k], grad.y, load(out + kLanes)));
        store(out + 2 * kLanes, fma(basis[k], grad.z, load(out + 2 * kLanes)));
    }
    const Vec3 to_unit = sh_basis_backward(direction, count, basis_gradient);
    const F16 along = dot(to_unit, direction);
    return inverse_distance * add_scaled(to_unit, zero() - along, direction);
}

// One view's share of the gradients. `sums` has a vector per entry of rotation, translation and centre.
static inline void view_backward(const LrmTask& task, const View& view, const Sixteen& g, M16 present,
                                 uint32_t visible_bits, F16* m, const float* columns, SixteenGradients& out,
                                 float* columns_gradient, float* sums, F16 (&mean2d)[2]) {
    const M16 visible = mask_from_bits(visible_bits);
    const Projection p = project_sixteen(task, view, g, present);
    const F16 opacity = g.opacity * p.compensation;
    const F16 effective_gradient = select(visible, zero() - m[kS] / opacity);
    out.opacity = out.opacity + select(visible, effective_gradient * p.compensation);

    Vec3 grad_u, grad_v;
    shape_rows_backward(task, g, p, m, effective_gradient, grad_u, grad_v);
    grad_u = {select(visible, grad_u.x), select(visible, grad_u.y), select(visible, grad_u.z)};
    grad_v = {select(visible, grad_v.x), select(visible, grad_v.y), select(visible, grad_v.z)};
    const F16 rows[6] = {p.row_u.x, p.row_u.y, p.row_u.z, p.row_v.x, p.row_v.y, p.row_v.z};
    for (int i = 0; i < 3; ++i) {
        out.shape[i] = add_scaled(out.shape[i], select(visible, rows[i]), grad_u);
        out.shape[i] = add_scaled(out.shape[i], select(visible, rows[3 + i]), grad_v);
    }
    const Vec3 grad_row_u = {dot(g.shape[0], grad_u), dot(g.shape[1], grad_u), dot(g.shape[2], grad_u)};
    const Vec3 grad_row_v = {dot(g.shape[0], grad_v), dot(g.shape[1], grad_v), dot(g.shape[2], grad_v)};

    const Vec3 r0 = set3(view.r[0]), r1 = set3(view.r[1]), r2 = set3(view.r[2]);
    const F16 minus_one = set1(-1.0f);
    const F16 ku = set1(view.fx) * p.inverse_z, kv = set1(view.fy) * p.inverse_z;
    const F16 grad_clipped_x = minus_one * ku * dot(grad_row_u, r2);
    const F16 grad_clipped_y = minus_one * kv * dot(grad_row_v, r2);
    F16 grad_x_over_z = select((p.x_over_z >= set1(view.x_low)) & (p.x_over_z <= set1(view.x_high)), grad_clipped_x);
    F16 grad_y_over_z = select((p.y_over_z >= set1(view.y_low)) & (p.y_over_z <= set1(view.y_high)), grad_clipped_y);
    mean2d[0] = select(visible, minus_one * fma(p.a, m[kSx], p.b * m[kSy]));
    mean2d[1] = select(visible, minus_one * fma(p.b, m[kSx], p.c * m[kSy]));
    grad_x_over_z = fma(set1(view.fx), mean2d[0], grad_x_over_z);
    grad_y_over_z = fma(set1(view.fy), mean2d[1], grad_y_over_z);
    Vec3 grad_camera;
    grad_camera.x = grad_x_over_z * p.inverse_z;
    grad_camera.y = grad_y_over_z * p.inverse_z;
    F16 grad_z = fma(dot(grad_row_u, p.row_u) + dot(grad_row_v, p.row_v), minus_one * p.inverse_z, m[kDepth]);
    grad_z = fnma(grad_camera.x, p.x_over_z, fnma(grad_camera.y, p.y_over_z, grad_z));
    grad_camera.x = select(visible, grad_camera.x), grad_camera.y = select(visible, grad_camera.y);
    grad_camera.z = select(visible, grad_z);
    out.mean = add_scaled(add_scaled(add_scaled(out.mean, grad_camera.x, r0), grad_camera.y, r1), grad_camera.z, r2);

    Vec3 grad_direction = {zero(), zero(), zero()};
    const Vec3 grad_color = {m[kRed], m[kGreen], m[kBlue]};
    if (task.sh_coefficients) {
        grad_direction = sh_backward(task, view, g, columns, grad_color, visible, columns_gradient);
        grad_direction = {select(visible, grad_direction.x), select(visible, grad_direction.y),
                          select(visible, grad_direction.z)};
        out.mean = out.mean + grad_direction;
    } else {
        add_to(columns_gradient, grad_color.x);
        add_to(columns_gradient + kLanes, grad_color.y);
        add_to(columns_gradient + 2 * kLanes, grad_color.z);
    }
    if (!sums) return;
    // row_u = ku (r0 - clipped_x r2), row_v = kv (r1 - clipped_y r2), in_camera = R mean + t.
    const F16 mean[3] = {g.mean.x, g.mean.y, g.mean.z};
    const F16 gu[3] = {grad_row_u.x, grad_row_u.y, grad_row_u.z}, gv[3] = {grad_row_v.x, grad_row_v.y, grad_row_v.z};
    for (int j = 0; j < 3; ++j) {
        const F16 a = select(visible, ku * gu[j]), b = select(visible, kv * gv[j]);
        const F16 at = select(visible, mean[j]);
        add_to(sums + kLanes * j, fma(grad_camera.x, at, a));
        add_to(sums + kLanes * (3 + j), fma(grad_camera.y, at, b));
        add_to(sums + kLanes * (6 + j), fms(grad_camera.z, at, select(visible, fma(a, p.clipped_x, b * p.clipped_y))));
    }
    add_to(sums + kLanes * 9, grad_camera.x);
    add_to(sums + kLanes * 10, grad_camera.y);
    add_to(sums + kLanes * 11, grad_camera.z);
    add_to(sums + kLanes * 12, zero() - grad_direction.x);
    add_to(sums + kLanes * 13, zero() - grad_direction.y);
    add_to(sums + kLanes * 14, zero() - grad_direction.z);
}

// From shape = rotation * scale to the quaternion and the scales; writes the gradients of `count` Gaussians.
static inline void store_gradients(const LrmGradients& out, size_t row, int count, const Sixteen& g,
                                   const SixteenGradients& grad) {
    const F16 mean[3] = {grad.mean.x, grad.mean.y, grad.mean.z};
    if (out.means) store_columns(mean, 3, count, out.means + 3 * row);
    if (out.opacities) store_columns(&grad.opacity, 1, count, out.opacities + row);
    if (out.scales) {
        F16 s[3] = {zero(), zero(), zero()};
        for (int i = 0; i < 3; ++i) {
            s[0] = fma(g.rotation[i].x, grad.shape[i].x, s[0]);
            s[1] = fma(g.rotation[i].y, grad.shape[i].y, s[1]);
            s[2] = fma(g.rotation[i].z, grad.shape[i].z, s[2]);
        }
        store_columns(s, 3, count, out.scales + 3 * row);
    }
    if (!out.wxyz) return;
    F16 r[3][3];
    for (int i = 0; i < 3; ++i) {
        r[i][0] = grad.shape[i].x * g.scale.x;
        r[i][1] = grad.shape[i].y * g.scale.y;
        r[i][2] = grad.shape[i].z * g.scale.z;
    }
    const F16 two = set1(2.0f), w = g.w, x = g.x, y = g.y, z = g.z;
    const F16 a = r[2][1] - r[1][2], b = r[0][2] - r[2][0], c = r[1][0] - r[0][1];
    const F16 xy = r[0][1] + r[1][0], xz = r[0][2] + r[2][0], yz = r[1][2] + r[2][1];
    F16 q[4];
    q[0] = two * fma(x, a, fma(y, b, z * c));
    q[1] = two * fma(w, a, fma(y, xy, fma(z, xz, zero() - two * x * (r[1][1] + r[2][2]))));
    q[2] = two * fma(w, b, fma(x, xy, fma(z, yz, zero() - two * y * (r[0][0] + r[2][2]))));
    q[3] = two * fma(w, c, fma(x, xz, fma(y, yz, zero() - two * z * (r[0][0] + r[1][1]))));
    const F16 along = fma(q[0], w, fma(q[1], x, fma(q[2], y, q[3] * z)));
    q[0] = fnma(along, w, q[0]) * g.inverse_length, q[1] = fnma(along, x, q[1]) * g.inverse_length;
    q[2] = fnma(along, y, q[2]) * g.inverse_length, q[3] = fnma(along, z, q[3]) * g.inverse_length;
    store_columns(q, 4, count, out.wxyz + 4 * row);
}

static inline void clear_rows(float* p, size_t row, int count, int width) {
    if (p) std::memset(p + row * width, 0, sizeof(float) * count * width);
}

// The gradients of Gaussians that no view sees.
static inline void clear_gradients(const LrmGradients& out, size_t row, int count, int features) {
    clear_rows(out.means, row, count, 3);
    clear_rows(out.wxyz, row, count, 4);
    clear_rows(out.scales, row, count, 3);
    clear_rows(out.opacities, row, count, 1);
    clear_rows(out.features, row, count, features);
}

static void project_chunk_backward(const LrmTask& task, const LrmGradients& out, Context& context, int scene,
                                   int chunk) {
    const int features = task.sh_coefficients ? 3 * task.sh_coefficients : 3;
    const int first_block = chunk * kChunkBlocks;
    const int last_block = first_block + kChunkBlocks < context.blocks ? first_block + kChunkBlocks : context.blocks;
    const int first_image = scene * task.views;
    const bool want_camera = out.world_to_cam;
    const size_t bytes = sizeof(float) * features * task.gaussians * static_cast<size_t>(task.scenes);
    const bool past_cache = bytes >= kStreamBytes && reinterpret_cast<uintptr_t>(out.features) % 64 == 0;
    const auto visible_in = [&](int image, int block) {
        return context.block_masks.get<uint16_t>()[static_cast<size_t>(image) * context.blocks + block];
    };
    const auto sums_of = [&](int image) {
        const size_t number = static_cast<size_t>(image) * context.chunks + chunk;
        return want_camera ? context.camera_sums.get<float>() + number * kCameraSums * kLanes : nullptr;
    };
    const auto row2d = [&](int image, int block) {
        return static_cast<size_t>(image) * task.gaussians + block * kLanes;
    };
    for (int v = 0; v < task.views; ++v) clear_rows(sums_of(first_image + v), 0, kCameraSums, kLanes);
    alignas(64) float columns[48 * kLanes], columns_gradient[48 * kLanes];
    for (int block = first_block; block < last_block; ++block) {
        const int first = block * kLanes;
        const int count = task.gaussians - first < kLanes ? task.gaussians - first : kLanes;
        const size_t row = static_cast<size_t>(scene) * task.gaussians + first;
        uint32_t seen = 0;
        for (int v = 0; v < task.views; ++v) seen |= visible_in(first_image + v, block);
        if (!seen) {
            clear_gradients(out, row, count, features);
            for (int v = 0; v < task.views; ++v) clear_rows(out.means2d, row2d(first_image + v, block), count, 2);
            continue;
        }
        Sixteen g;
        if (block + 1 < last_block) prefetch_features(task, row, features);
        load_sixteen(task, row, count, g);
        load_features(task.features + row * features, features, count, columns);
        clear_rows(columns_gradient, 0, features, kLanes);
        const Vec3 none = {zero(), zero(), zero()};
        SixteenGradients grad = {none, zero(), {none, none, none}};
        for (int v = 0; v < task.views; ++v) {
            const int image = first_image + v;
            const uint32_t visible = visible_in(image, block);
            if (!visible) {
                clear_rows(out.means2d, row2d(image, block), count, 2);
                continue;
            }
            F16 moments[16], mean2d[2];
            gather_slots(context, image, block, visible, moments);
            view_backward(task, view_of(task, context, image), g, mask_from_bits((1u << count) - 1u), visible, moments, columns,
                          grad, columns_gradient, sums_of(image), mean2d);
            if (out.means2d) store_columns(mean2d, 2, count, out.means2d + 2 * row2d(image, block));
        }
        store_gradients(out, row, count, g, grad);
        if (out.features)
            store_features(columns_gradient, features, count, out.features + row * features, past_cache);
    }
    if (past_cache) streamed();
}

}  // namespace
}  // namespace lrm
