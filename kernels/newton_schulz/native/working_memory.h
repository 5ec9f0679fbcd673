// What a call works in, and how its threads wait for each other.
#pragma once

#include <immintrin.h>
#include <sched.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>

#include "tiles.h"

namespace lrm {

constexpr size_t kAlignment = 2 << 20;  // Of a huge page.
constexpr size_t kMostKept = 256 << 20; // Beyond that, fresh pages cost little beside the work.
constexpr int kSpins = 4000;            // Rounds that a thread waits for others before it lets them run.

// Memory that the next call finds warm: fresh pages would cost as much as the products.
class Scratch {
    struct Memory {
        size_t bytes;
        void* start;
        ~Memory() { std::free(start); }
    };
    static std::atomic<Memory*> spare;
    std::unique_ptr<Memory> memory;
    uint8_t* next;

public:
    explicit Scratch(size_t bytes) : memory(spare.exchange(nullptr)) {
        if (!memory || memory->bytes < bytes) {
            memory.reset();
            bytes = (bytes + kAlignment - 1) & ~(kAlignment - 1);
            memory.reset(new Memory{bytes, std::aligned_alloc(kAlignment, bytes)});
            if (!memory->start) throw std::bad_alloc();
            madvise(memory->start, bytes, MADV_HUGEPAGE);
        }
        next = static_cast<uint8_t*>(memory->start);
    }
    ~Scratch() {
        if (memory && memory->bytes > kMostKept) return;
        std::unique_ptr<Memory> other(spare.exchange(memory.release()));
    }

    Tiles tiles(int rows, int columns) {
        return {rows, columns, reinterpret_cast<uint16_t*>(take(sizeof(uint16_t) * rows * columns))};
    }
    float* sums(int blocks) { return reinterpret_cast<float*>(take(sizeof(float) * kSums * blocks)); }

private:
    uint8_t* take(size_t bytes) {
        next += bytes;
        return next - bytes;
    }
};
inline std::atomic<Scratch::Memory*> Scratch::spare{nullptr};

// Threads wait here for each other: for less time than it takes to put one to sleep and wake it again.
class Barrier {
    int threads = 1;
    std::atomic<int> arrived{0}, round{0};

public:
    void expect(int threads_) { threads = threads_; }
    void wait() {
        const int now = round.load();
        if (arrived.fetch_add(1) + 1 == threads) {
            arrived.store(0);
            round.store(now + 1);
            return;
        }
        for (int spins = 0; round.load() == now; ++spins) spins < kSpins ? _mm_pause() : (void)sched_yield();
    }
};

}  // namespace lrm
