/* A histogram of microseconds with logarithmic buckets: exact below 128, within 1.6 % above. */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

enum { SUB_BITS = 6, SUB_BUCKETS = 1 << SUB_BITS, HISTOGRAM_BUCKETS = (64 - SUB_BITS + 1) * SUB_BUCKETS };

struct histogram {
    uint64_t count, max;
    uint64_t bucket[HISTOGRAM_BUCKETS];
};

static inline unsigned bucket_of(uint64_t value) {
    if (value < 2 * SUB_BUCKETS) return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - SUB_BITS;
    return shift * SUB_BUCKETS + (unsigned)(value >> shift);
}

/* The middle of a bucket. */
static inline uint64_t bucket_value(unsigned index) {
    if (index < 2 * SUB_BUCKETS) return index;
    unsigned shift = index / SUB_BUCKETS - 1;
    uint64_t low = (uint64_t)(index - shift * SUB_BUCKETS) << shift;
    return low + ((UINT64_C(1) << shift) - 1) / 2;
}

static inline void histogram_add(struct histogram *h, uint64_t value) {
    h->bucket[bucket_of(value)]++;
    h->count++;
    if (value > h->max) h->max = value;
}

static inline void histogram_merge(struct histogram *into, const struct histogram *from) {
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) into->bucket[i] += from->bucket[i];
    into->count += from->count;
    if (from->max > into->max) into->max = from->max;
}

/* The value that `share` (0 to 1) of all values do not exceed; 0 when there are none. */
static inline uint64_t histogram_at(const struct histogram *h, double share) {
    uint64_t wanted = (uint64_t)(share * (double)h->count + 0.999999), seen = 0;
    if (wanted == 0) wanted = 1;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->bucket[i];
        if (seen == h->count) return h->max;
        if (seen >= wanted) return bucket_value(i);
    }
    return 0;
}

#endif
