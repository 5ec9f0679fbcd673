// Loops on several threads, for code that is compiled once and for no instruction set in particular.
#pragma once

#include <cstdint>
#include <new>

namespace lrm {

// Call body(i) for 0 <= i < count on the given number of threads; what was thrown is thrown again here.
template <class Body>
void parallel(int threads, int64_t count, int grain, Body body) {
    if (threads <= 1 || count <= 1) {
        for (int64_t i = 0; i < count; ++i) body(i);
        return;
    }
    bool failed = false;
#pragma omp parallel for num_threads(threads) schedule(dynamic, grain)
    for (int64_t i = 0; i < count; ++i) {
        try {
            body(i);
        } catch (const std::bad_alloc&) {
#pragma omp atomic write
            failed = true;
        }
    }
    if (failed) throw std::bad_alloc();
    (void)grain;
}

}  // namespace lrm
