// What the stages share: the caller's description of a job (plain C), and the memory of one call.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

// One call draws scenes * views images. All arrays are contiguous float32; shapes in brackets.
struct LrmTask {
    int32_t scenes, views, gaussians;
    // Number of SH coefficients: 1, 4, 9 or 16; 0 means that `features` are plain colours [scenes gaussians 3].
    int32_t sh_coefficients;
    int32_t height, width;
    int32_t antialiased, threads;
    float near_plane, far_plane, eps2d, max_alpha;
    const float* means;         // [scenes gaussians 3]
    const float* wxyz;          // [scenes gaussians 4]
    const float* scales;        // [scenes gaussians 3]
    const float* opacities;     // [scenes gaussians]
    const float* features;      // [scenes gaussians k 3] or [scenes gaussians 3]
    const float* world_to_cam;  // [scenes views 4 4]
    const float* intrinsics;    // [scenes views 4], fx fy cx cy
    const float* background;    // [scenes views 3] or null
    float* colors;              // [scenes views 3 height width]
    float* alphas;              // [scenes views 1 height width]
    float* depths;              // [scenes views 1 height width] or null
    float* radii;               // [scenes views gaussians] or null: pixels, 0 where the Gaussian is not drawn
};

// Gradients of the outputs (null: zero) and of the inputs (null: not wanted).
struct LrmGradients {
    const float *colors, *alphas, *depths;
    float *means, *wxyz, *scales, *opacities, *features, *world_to_cam, *background;
    float* means2d;  // [scenes views gaussians 2], in pixels
};
}

namespace lrm {

// Inlined always: a copy left standing would be shared between instruction sets by the linker.
#define LRM_INLINE inline __attribute__((always_inline))

constexpr int kTile = 16;
constexpr int kLanes = 16;
constexpr int kChunkBlocks = 64;
constexpr int kChunkGaussians = kChunkBlocks * kLanes;
constexpr float kMinAlpha = 1.0f / 255.0f;
constexpr float kMinTransmittance = 1e-4f;
// Sums per camera: rotation 9, translation 3, centre 3.
constexpr int kCameraSums = 15;

// Memory that grows and is kept for the next call.
struct Buffer {
    void* data = nullptr;
    size_t bytes = 0;

    Buffer() = default;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer();
    // Throws std::bad_alloc; `keep` bytes from the start survive.
    void reserve(size_t wanted, size_t keep = 0);

    template <class T>
    LRM_INLINE T* get() const {
        return static_cast<T*>(data);
    }
};

// A Gaussian as one camera sees it, one cache line. alpha = opacity 2^(a dx^2 + b dx dy + c dy^2).
struct alignas(64) Record {
    float x, y, a, b, c, opacity;
    float red, green, blue, depth;
    // alpha >= 1/255 only where the exponent is at least limit (a little slack is on the safe side).
    float limit;
    float extent_x, extent_y;
    // -b / (2 a) and -b / (2 c): slopes of the lines on which sigma is least along a row, along a column.
    float slope_x, slope_y;
    // Its number in the list of the tile that is being drawn.
    float number;
};

// One Gaussian on one tile. A *slot* is the number of an entry in its image: those of one Gaussian are neighbours.
struct Entry {
    uint32_t tile;
    // Blocks of the tile that the Gaussian touches.
    uint16_t blocks;
};

struct ListEntry {
    uint32_t depth_bits, record, slot;
    uint16_t blocks;
};

// The entries of one chunk of Gaussians in one image, Gaussian by Gaussian.
struct Bin {
    Buffer entries;  // Entry [capacity]
    uint32_t count = 0, capacity = 0;
    // Slot of the first entry.
    uint32_t first_slot = 0;

    // Make room for `more` entries.
    void grow(uint32_t more);
};

// The gradient of one slot: moments of the gradient to sigma, and weights times channel gradients.
enum Moment { kS, kSx, kSy, kSxx, kSxy, kSyy, kRed, kGreen, kBlue, kDepth, kMoments };
constexpr int kSlotFloats = 12;

// A tile's list is drawn in batches. For each of its sixteen blocks, one bit per entry of a batch.
constexpr int kBatch = 128;
struct BlockBits {
    uint64_t words[16][kBatch / 64];
};

// An image between its stages, and from the forward to the backward pass.
struct Image {
    uint32_t slots = 0;
    // The list of tile 0, then of tile 1, ...; nearest first as far as it was drawn.
    Buffer tile_begin;      // uint32 [tiles + 1]
    Buffer list;            // ListEntry [slots]
    Buffer taken;           // BlockBits, from first_batch of every tile on: which entries some pixel of a block took
    Buffer part_counts;     // uint32 [parts, tiles]
    Buffer slot_used;       // uint8 [slots]: whether the slot has a gradient
    Buffer slot_gradients;  // float [slots, kSlotFloats]
};

struct Context {
    int32_t images = 0, chunks = 0, blocks = 0, tiles_x = 0, tiles_y = 0, tiles = 0;
    Buffer records;          // Record [images, chunks * kChunkGaussians], each chunk filled from its start
    Buffer depth_bits;       // uint32, likewise: bits of the float, which sort like it
    Buffer record_entries;   // uint32 [..., 2], likewise: the record's first entry in its bin, number of entries
    Buffer chunk_counts;     // uint32 [images, chunks]: records
    Buffer block_masks;      // uint16 [images, blocks]: which of sixteen Gaussians are visible
    Buffer block_starts;     // uint32 [images, blocks]: the record of the first of them
    Buffer transmittance;    // float [images, tiles, 16 blocks, 16 pixels]
    Buffer ends;             // float, likewise: list entry at which the pixel ended
    Buffer alpha;            // float, likewise: sum of the weights
    Buffer depth;            // float, likewise: expected depth
    Buffer camera_sums;      // float [images, chunks, kCameraSums, kLanes]
    Buffer background_sums;  // float [images, tiles, 3]
    Buffer cam_to_world;     // double [images, 4, 4], for spherical harmonics alone
    Bin* bins = nullptr;     // [images, chunks]
    Image* image = nullptr;  // [images]
    int32_t bin_capacity = 0, image_capacity = 0;
    Context* next = nullptr;

    Context() = default;
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;
    ~Context();
    void shape(const LrmTask& task);
    LRM_INLINE size_t records_per_image() const { return static_cast<size_t>(chunks) * kChunkGaussians; }
    LRM_INLINE size_t pixels_per_image() const { return static_cast<size_t>(tiles) * kTile * kTile; }
};

// A context that nobody else uses, with memory from earlier calls if there were any; and its return.
Context* take_context();
void give_back(Context* context);

// Where a tile's batches are among those of its image; leaves room for a last batch that is not full.
LRM_INLINE size_t first_batch(uint32_t tile_begin, int tile) { return tile_begin / kBatch + static_cast<size_t>(tile); }

// The stages that exist once per instruction set.
struct Stages {
    const char* name;
    // Project one chunk of Gaussians into all views of a scene, and bin it; returns a bit per input that is not finite.
    uint32_t (*project)(const LrmTask&, Context&, int scene, int chunk);
    void (*draw_tile)(const LrmTask&, Context&, int image, int tile);
    void (*draw_tile_backward)(const LrmTask&, const LrmGradients&, Context&, int image, int tile);
    void (*project_backward)(const LrmTask&, const LrmGradients&, Context&, int scene, int chunk);
};

extern const Stages kPortableStages;
extern const Stages kAvx2Stages;
extern const Stages kAvx512Stages;

}  // namespace lrm
