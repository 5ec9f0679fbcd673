// A tile's list from near to far, as far as it is drawn; included before tiles.h.
#pragma once

namespace lrm {
namespace {

// Entries go to buckets of depth at once. A bucket is sorted when it is reached, and most pixels end before the last.
class TileOrder {
   public:
    // The list is ordered by record. It is in no order any more, but for what `reach` has sorted.
    TileOrder(ListEntry* list, uint32_t count) : list_(list) {
        uint32_t least = 0xffffffffu, most = 0;
        for (uint32_t i = 0; i < count; ++i) {
            least = list[i].depth_bits < least ? list[i].depth_bits : least;
            most = list[i].depth_bits > most ? list[i].depth_bits : most;
        }
        const uint32_t range = count ? most - least : 0;
        const uint32_t wanted = count / kPerBucket < kMaxBuckets ? count / kPerBucket : kMaxBuckets;
        int shift = 0;
        while (range >> shift && range >> shift >= wanted) ++shift;
        buckets_ = (range >> shift) + 1;
        allocate(count);
        std::memset(ends_, 0, sizeof(uint32_t) * buckets_);
        for (uint32_t i = 0; i < count; ++i) {
            copy_[i] = list[i];
            ++ends_[(list[i].depth_bits - least) >> shift];
        }
        uint32_t sum = 0;
        for (uint32_t b = 0; b < buckets_; ++b) {
            const uint32_t here = ends_[b];
            ends_[b] = sum;
            sum += here;
        }
        for (uint32_t i = 0; i < count; ++i) {
            const uint32_t at = ends_[(copy_[i].depth_bits - least) >> shift]++;
            std::memcpy(depth_ + at, &copy_[i].depth_bits, sizeof(float));
            index_[at] = i;
        }
    }

    // Sort the first `wanted` entries, or all.
    void reach(uint32_t wanted) {
        for (; sorted_ < wanted && bucket_ < buckets_; ++bucket_) {
            sort(sorted_, ends_[bucket_] - sorted_);
            sorted_ = ends_[bucket_];
        }
    }

   private:
    static constexpr uint32_t kMaxBuckets = 1024, kPerBucket = 8;

    void allocate(uint32_t count) {
        static thread_local Buffer memory;
        // A vector may be read at the last depth.
        memory.reserve(sizeof(ListEntry) * count + sizeof(float) * (count + kLanes) + sizeof(uint32_t) * count);
        copy_ = memory.get<ListEntry>();
        depth_ = reinterpret_cast<float*>(copy_ + count);
        index_ = reinterpret_cast<uint32_t*>(depth_ + count + kLanes);
    }

    // An entry of a small bucket goes where as many are before it as are nearer.
    void sort(uint32_t begin, uint32_t count) {
        const uint32_t* index = index_ + begin;
        ListEntry* list = list_ + begin;
        if (count <= kLanes) {
            const F16 depths = load(depth_ + begin);
            const uint32_t all = (1u << count) - 1u;
            uint32_t filled = 0;
            for (uint32_t i = 0; i < count; ++i) {
                const uint32_t nearer = bits(depths < set1(depth_[begin + i])) & all;
                const int place = __builtin_popcount(nearer);
                filled |= 1u << place;
                list[place] = copy_[index[i]];
            }
            // Equal depths fell on one place.
            if (filled == all) return;
        }
        for (uint32_t i = 0; i < count; ++i) list[i] = copy_[index[i]];
        sort_by_depth(list, count);
    }

    ListEntry *list_, *copy_;
    float* depth_;
    uint32_t* index_;
    uint32_t sorted_ = 0, bucket_ = 0, buckets_;
    // Of every bucket.
    uint32_t ends_[kMaxBuckets];
};

}  // namespace
}  // namespace lrm
