// Gaussians to records and back, sixteen at a time; included after gaussian_math.h inside a namespace of its own.
#pragma once

namespace lrm {
namespace {

// Sixteen Gaussians of one scene with what does not depend on the camera.
struct Sixteen {
    Vec3 mean;
    Vec3 scale;
    F16 opacity;
    // Unit quaternion, and one over the length it came with.
    F16 w, x, y, z, inverse_length;
    // Rows of the rotation, and of rotation times scale.
    Vec3 rotation[3], shape[3];
};

struct View {
    float r[3][3], t[3], fx, fy, cx, cy;
    float x_low, x_high, y_low, y_high;
    float center[3];
};

struct Projection {
    Vec3 in_camera;
    F16 inverse_z, x_over_z, y_over_z, clipped_x, clipped_y;
    // Rows of Jacobian times rotation, and of that times shape.
    Vec3 row_u, row_v, u, v;
    F16 u_u, u_v, v_v, determinant, blurred_determinant;
    F16 a, b, c, compensation;
    M16 valid;
};

static inline View view_of(const LrmTask& task, const Context& context, int image) {
    View view;
    const float* m = task.world_to_cam + 16 * static_cast<size_t>(image);
    const double* inverse = context.cam_to_world.get<double>() + 16 * static_cast<size_t>(image);
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) view.r[i][j] = m[4 * i + j];
        view.t[i] = m[4 * i + 3];
        view.center[i] = task.sh_coefficients ? static_cast<float>(inverse[4 * i + 3]) : 0.0f;
    }
    const float* k = task.intrinsics + 4 * static_cast<size_t>(image);
    view.fx = k[0], view.fy = k[1], view.cx = k[2], view.cy = k[3];
    const float width = static_cast<float>(task.width), height = static_cast<float>(task.height);
    const float margin_x = 0.15f * width / view.fx, margin_y = 0.15f * height / view.fy;
    view.x_low = -view.cx / view.fx - margin_x, view.x_high = (width - view.cx) / view.fx + margin_x;
    view.y_low = -view.cy / view.fy - margin_y, view.y_high = (height - view.cy) / view.fy + margin_y;
    return view;
}

static inline Vec3 set3(const float* p) { return {set1(p[0]), set1(p[1]), set1(p[2])}; }

// Read `count` rows of `width` floats into columns; missing rows repeat the last one.
static inline void load_columns(const float* rows, int width, int count, float* columns) {
    for (int i = 0; i < kLanes; ++i) {
        const float* row = rows + static_cast<size_t>(width) * (i < count ? i : count - 1);
        for (int j = 0; j < width; ++j) columns[kLanes * j + i] = row[j];
    }
}

static inline void store_columns(const F16* values, int width, int count, float* rows) {
    alignas(64) float columns[4 * kLanes];
    for (int j = 0; j < width; ++j) store(columns + kLanes * j, values[j]);
    for (int i = 0; i < count; ++i)
        for (int j = 0; j < width; ++j) rows[width * i + j] = columns[kLanes * j + i];
}

// Transpose rows of `width` floats to columns[width][16], through registers where sixteen whole rows are there.
static inline void load_features(const float* rows, int width, int count, float* columns) {
    if (count < kLanes || width % kLanes != 0) {
        load_columns(rows, width, count, columns);
        return;
    }
    for (int j = 0; j < width; j += kLanes) {
        F16 r[16];
        for (int i = 0; i < kLanes; ++i) r[i] = load(rows + static_cast<size_t>(width) * i + j);
        transpose16(r);
        for (int i = 0; i < kLanes; ++i) store(columns + kLanes * (j + i), r[i]);
    }
}

// The way back; with `past_cache` the rows are aligned and so many that they would push everything else out.
static inline void store_features(const float* columns, int width, int count, float* rows, bool past_cache) {
    if (count < kLanes || width % kLanes != 0) {
        for (int i = 0; i < count; ++i)
            for (int j = 0; j < width; ++j) rows[static_cast<size_t>(width) * i + j] = columns[kLanes * j + i];
        return;
    }
    for (int j = 0; j < width; j += kLanes) {
        F16 r[16];
        for (int i = 0; i < kLanes; ++i) r[i] = load(columns + kLanes * (j + i));
        transpose16(r);
        for (int i = 0; i < kLanes; ++i) {
            float* at = rows + static_cast<size_t>(width) * i + j;
            past_cache ? stream(at, r[i]) : store(at, r[i]);
        }
    }
}

// Ask for the features of the sixteen Gaussians after these: the processor notices too late where they are.
static inline void prefetch_features(const LrmTask& task, size_t row, int width) {
    const float* next = task.features + (row + kLanes) * width;
    for (int i = 0; i < width; ++i) __builtin_prefetch(next + kLanes * i);
}

static inline bool finite(F16 x) { return bits(x - x >= zero()) == 0xffffu; }

// Load Gaussians first to first + count of a scene; returns a bit per input that is not finite.
static inline uint32_t load_sixteen(const LrmTask& task, size_t first, int count, Sixteen& g) {
    alignas(64) float m[3 * kLanes], q[4 * kLanes], s[3 * kLanes], o[kLanes];
    load_columns(task.means + 3 * first, 3, count, m);
    load_columns(task.wxyz + 4 * first, 4, count, q);
    load_columns(task.scales + 3 * first, 3, count, s);
    load_columns(task.opacities + first, 1, count, o);
    g.mean = {load(m), load(m + 16), load(m + 32)};
    g.scale = {load(s), load(s + 16), load(s + 32)};
    g.opacity = load(o);
    g.w = load(q), g.x = load(q + 16), g.y = load(q + 32), g.z = load(q + 48);
    uint32_t bad = finite(g.mean.x + g.mean.y + g.mean.z) ? 0 : 1;
    bad |= finite(g.w + g.x + g.y + g.z) ? 0 : 2;
    bad |= finite(g.scale.x + g.scale.y + g.scale.z) ? 0 : 4;
    bad |= finite(g.opacity) ? 0 : 8;
    F16 length = sqrt(fma(g.w, g.w, fma(g.x, g.x, fma(g.y, g.y, g.z * g.z))));
    g.inverse_length = set1(1.0f) / max(length, set1(1e-12f));
    g.w = g.w * g.inverse_length, g.x = g.x * g.inverse_length;
    g.y = g.y * g.inverse_length, g.z = g.z * g.inverse_length;
    const F16 one = set1(1.0f), two = set1(2.0f);
    const F16 xx = g.x * g.x, yy = g.y * g.y, zz = g.z * g.z, xy = g.x * g.y, xz = g.x * g.z, yz = g.y * g.z;
    const F16 wx = g.w * g.x, wy = g.w * g.y, wz = g.w * g.z;
    g.rotation[0] = {fnma(two, yy + zz, one), two * (xy - wz), two * (xz + wy)};
    g.rotation[1] = {two * (xy + wz), fnma(two, xx + zz, one), two * (yz - wx)};
    g.rotation[2] = {two * (xz - wy), two * (yz + wx), fnma(two, xx + yy, one)};
    for (int i = 0; i < 3; ++i) {
        const Vec3 r = g.rotation[i];
        g.shape[i] = {r.x * g.scale.x, r.y * g.scale.y, r.z * g.scale.z};
    }
    return bad;
}

static inline Vec3 times_shape(Vec3 row, const Sixteen& g) {
    Vec3 r = row.x * g.shape[0];
    return add_scaled(add_scaled(r, row.y, g.shape[1]), row.z, g.shape[2]);
}

static inline Projection project_sixteen(const LrmTask& task, const View& view, const Sixteen& g, M16 present) {
    Projection p;
    const Vec3 r0 = set3(view.r[0]), r1 = set3(view.r[1]), r2 = set3(view.r[2]);
    p.in_camera = {dot(r0, g.mean) + set1(view.t[0]), dot(r1, g.mean) + set1(view.t[1]),
                   dot(r2, g.mean) + set1(view.t[2])};
    const F16 z = p.in_camera.z;
    p.valid = present & (z >= set1(task.near_plane)) & (z <= set1(task.far_plane));
    p.inverse_z = set1(1.0f) / z;
    p.x_over_z = p.in_camera.x * p.inverse_z, p.y_over_z = p.in_camera.y * p.inverse_z;
    p.clipped_x = min(max(p.x_over_z, set1(view.x_low)), set1(view.x_high));
    p.clipped_y = min(max(p.y_over_z, set1(view.y_low)), set1(view.y_high));
    const F16 minus_one = set1(-1.0f);
    p.row_u = set1(view.fx) * p.inverse_z * add_scaled(r0, minus_one * p.clipped_x, r2);
    p.row_v = set1(view.fy) * p.inverse_z * add_scaled(r1, minus_one * p.clipped_y, r2);
    p.u = times_shape(p.row_u, g), p.v = times_shape(p.row_v, g);
    p.u_u = dot(p.u, p.u), p.u_v = dot(p.u, p.v), p.v_v = dot(p.v, p.v);
    // |u x v|^2 is the determinant without the cancellation of u_u v_v - u_v^2.
    const Vec3 n = cross(p.u, p.v);
    const F16 eps = set1(task.eps2d);
    p.determinant = dot(n, n);
    p.blurred_determinant = fma(eps, p.u_u + p.v_v + eps, p.determinant);
    const F16 inverse = set1(1.0f) / p.blurred_determinant;
    p.a = (p.v_v + eps) * inverse, p.b = zero() - p.u_v * inverse, p.c = (p.u_u + eps) * inverse;
    p.compensation = task.antialiased ? sqrt(p.determinant * inverse) : set1(1.0f);
    p.valid = p.valid & (p.blurred_determinant > zero()) & (p.a >= zero()) & (p.c >= zero());
    return p;
}

// Natural logarithm of numbers from 1 up, a little too large (by less than 1e-3).
static inline F16 log_above(F16 x) {
    F16 exponent;
    const F16 m = mantissa(x, exponent) - set1(1.0f);
    F16 p = fma(set1(-0.0258250f), m, set1(0.1208930f));
    p = fma(p, m, set1(-0.2773120f));
    p = fma(p, m, set1(0.4569290f));
    p = fma(p, m, set1(-0.7178970f));
    p = fma(p, m, set1(1.4424950f)) * m;
    return fma(set1(0.69314718f), exponent + p, set1(5e-4f));
}

static inline Vec3 view_direction(const View& view, const Sixteen& g, F16& inverse_distance) {
    const Vec3 d = {g.mean.x - set1(view.center[0]), g.mean.y - set1(view.center[1]),
                    g.mean.z - set1(view.center[2])};
    inverse_distance = set1(1.0f) / max(sqrt(dot(d, d)), set1(1e-12f));
    return inverse_distance * d;
}

// Colour + 0.5 before it is cut at zero.
static inline Vec3 sh_color(const float* sh, int count, const F16* basis) {
    const F16 half = set1(0.5f);
    Vec3 c = {half, half, half};
    for (int k = 0; k < count; ++k) {
        const float* s = sh + 3 * kLanes * k;
        c = add_scaled(c, basis[k], {load(s), load(s + kLanes), load(s + 2 * kLanes)});
    }
    return c;
}

// Write the records of the visible lanes one after the other, and the bits of their depths.
static inline void store_records(uint32_t visible, const F16 (&fields)[16], Record* out, uint32_t* depth_bits) {
    F16 rows[16];
    for (int i = 0; i < 16; ++i) rows[i] = fields[i];
    transpose16(rows);
    for (int lane = 0; lane < kLanes; ++lane)
        if (visible >> lane & 1u) {
            store(&out->x, rows[lane]);
            std::memcpy(depth_bits++, &(out++)->depth, sizeof(float));
        }
}

// Where the Gaussian can be seen: limit of sigma and half the bounding box. Returns the lanes that touch a pixel.
static inline M16 extents(const LrmTask& task, const Projection& p, F16 x, F16 y, F16 opacity, F16& limit, F16& ex,
                          F16& ey) {
    const M16 visible = p.valid & (opacity >= set1(kMinAlpha));
    limit = log_above(max(opacity * set1(255.0f), set1(1.0f)));
    const F16 eps = set1(task.eps2d), slack = set1(1e-3f), twice = limit + limit;
    ex = fma(sqrt(twice * (p.u_u + eps)), set1(1.0f + 1e-5f), slack);
    ey = fma(sqrt(twice * (p.v_v + eps)), set1(1.0f + 1e-5f), slack);
    const F16 half = set1(0.5f), right = set1(task.width - 0.5f), bottom = set1(task.height - 0.5f);
    return visible & (x + ex >= half) & (x - ex <= right) & (y + ey >= half) & (y - ey <= bottom);
}

static uint32_t project_chunk(const LrmTask& task, Context& context, int scene, int chunk) {
    const int features = task.sh_coefficients ? 3 * task.sh_coefficients : 3;
    const int first_block = chunk * kChunkBlocks;
    const int last_block = first_block + kChunkBlocks < context.blocks ? first_block + kChunkBlocks : context.blocks;
    alignas(64) float columns[48 * kLanes];
    uint32_t bad = 0;
    const int first_image = scene * task.views;
    uint32_t* counts = context.chunk_counts.get<uint32_t>();
    for (int v = 0; v < task.views; ++v) {
        const size_t bin = static_cast<size_t>(first_image + v) * context.chunks + chunk;
        counts[bin] = context.bins[bin].count = 0;
    }
    for (int block = first_block; block < last_block; ++block) {
        const int first = block * kLanes;
        const int count = task.gaussians - first < kLanes ? task.gaussians - first : kLanes;
        const size_t row = static_cast<size_t>(scene) * task.gaussians + first;
        const M16 present = mask_from_bits((1u << count) - 1u);
        Sixteen g;
        if (block + 1 < last_block) prefetch_features(task, row, features);
        bad |= load_sixteen(task, row, count, g);
        bool have_features = false;
        for (int v = 0; v < task.views; ++v) {
            const int image = first_image + v;
            const View view = view_of(task, context, image);
            const Projection p = project_sixteen(task, view, g, present);
            F16 f[16];
            f[0] = fma(set1(view.fx), p.x_over_z, set1(view.cx));
            f[1] = fma(set1(view.fy), p.y_over_z, set1(view.cy));
            f[5] = g.opacity * p.compensation;
            const uint32_t visible = bits(extents(task, p, f[0], f[1], f[5], f[10], f[11], f[12]));
            uint32_t& filled = counts[static_cast<size_t>(image) * context.chunks + chunk];
            const uint32_t start = static_cast<uint32_t>(chunk) * kChunkGaussians + filled;
            const size_t slot = static_cast<size_t>(image) * context.blocks + block;
            context.block_masks.get<uint16_t>()[slot] = static_cast<uint16_t>(visible);
            context.block_starts.get<uint32_t>()[slot] = start;
            if (task.radii) {
                const F16 radius = select(mask_from_bits(visible), max(f[11], f[12]));
                store_columns(&radius, 1, count, task.radii + static_cast<size_t>(image) * task.gaussians + first);
            }
            if (!visible) continue;
            if (!have_features) {
                load_features(task.features + row * features, features, count, columns);
                have_features = true;
                F16 sum = zero();
                for (int j = 0; j < features; ++j) sum = sum + load(columns + kLanes * j);
                bad |= finite(sum) ? 0 : 16;
            }
            Vec3 color = {load(columns), load(columns + kLanes), load(columns + 2 * kLanes)};
            if (task.sh_coefficients) {
                F16 basis[16], inverse_distance;
                sh_basis(view_direction(view, g, inverse_distance), task.sh_coefficients, basis);
                color = sh_color(columns, task.sh_coefficients, basis);
                color = {max(color.x, zero()), max(color.y, zero()), max(color.z, zero())};
            }
            const F16 to_log2 = set1(-1.44269504f), half = set1(-0.72134752f);
            f[2] = half * p.a, f[3] = to_log2 * p.b, f[4] = half * p.c, f[10] = to_log2 * f[10];
            f[6] = color.x, f[7] = color.y, f[8] = color.z, f[9] = p.in_camera.z;
            f[13] = zero() - p.b / p.a, f[14] = zero() - p.b / p.c, f[15] = zero();
            const size_t at = image * context.records_per_image() + start;
            const uint32_t added = static_cast<uint32_t>(__builtin_popcount(visible));
            Record* records = context.records.get<Record>() + at;
            store_records(visible, f, records, context.depth_bits.get<uint32_t>() + at);
            bin_records(context, records, added, context.record_entries.get<uint32_t>() + 2 * at,
                        context.bins[static_cast<size_t>(image) * context.chunks + chunk]);
            filled += added;
        }
    }
    return bad;
}

}  // namespace
}  // namespace lrm
