/* What load.c and kernel.c share: the clock, sockets, the WebSocket handshake and frames (RFC 6455).
 * Not here: what either of them measures. Linux, C11. */
#ifndef BENCH_WS_H
#define BENCH_WS_H

#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { OP_CONTINUATION = 0, OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };

#define WS_MAX_HEADER 14 /* 2 bytes, 8 of length, 4 of mask */
#define WS_MAX_MESSAGE (16u << 20)
#define WS_GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#define WS_ACCEPT_LEN 28

static inline void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static inline void *must(void *memory) {
    if (!memory) die("out of memory");
    return memory;
}

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Let this process have as many descriptors as the hard limit gives; return how many that is. */
static inline uint64_t raise_descriptors(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) die("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) die("setrlimit");
    return limit.rlim_cur;
}

static inline void set_option(int fd, int level, int name, int value) {
    if (setsockopt(fd, level, name, &value, sizeof value) < 0) die("setsockopt");
}

/* A buffer that grows; `len` bytes are in use. */
struct buffer {
    uint8_t *data;
    size_t len, cap;
};

static inline void buffer_add(struct buffer *b, const void *data, size_t len) {
    if (len == 0) return;
    if (b->len + len > b->cap) {
        b->cap = (b->len + len) * 2;
        b->data = must(realloc(b->data, b->cap));
    }
    memcpy(b->data + b->len, data, len);
    b->len += len;
}

static inline void buffer_drop(struct buffer *b, size_t len) {
    b->len -= len;
    if (b->len) memmove(b->data, b->data + len, b->len);
}

static inline void buffer_free(struct buffer *b) {
    free(b->data);
    *b = (struct buffer){0};
}

/* SHA-1 (FIPS 180-4) of one short message: the handshake needs it, nothing else does. */
static inline uint32_t rotate(uint32_t x, int n) { return (x << n) | (x >> (32 - n)); }

static inline void sha1_block(uint32_t h[5], const uint8_t *p) {
    static const uint32_t k[4] = {0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xCA62C1D6};
    uint32_t w[80];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 |
               p[4 * i + 3];
    for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 80; i++) {
        uint32_t f = i < 20   ? (b & c) | (~b & d)
                     : i < 40 ? b ^ c ^ d
                     : i < 60 ? (b & c) | (b & d) | (c & d)
                              : b ^ c ^ d;
        uint32_t next = rotate(a, 5) + f + e + k[i / 20] + w[i];
        e = d, d = c, c = rotate(b, 30), b = a, a = next;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
}

static inline void sha1(const char *text, size_t len, uint8_t digest[20]) {
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    uint8_t block[128] = {0};
    size_t blocks = (len + 8) / 64 + 1;
    if (blocks > 2) die("sha1: too long a key");
    memcpy(block, text, len);
    block[len] = 0x80;
    for (int i = 0; i < 8; i++)
        block[blocks * 64 - 1 - (size_t)i] = (uint8_t)((uint64_t)len * 8 >> (8 * i));
    for (size_t i = 0; i < blocks; i++) sha1_block(h, block + 64 * i);
    for (int i = 0; i < 20; i++) digest[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static inline void base64(const uint8_t *in, size_t len, char *out) {
    static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < len; i += 3) {
        uint32_t v = (uint32_t)in[i] << 16;
        if (i + 1 < len) v |= (uint32_t)in[i + 1] << 8;
        if (i + 2 < len) v |= in[i + 2];
        *out++ = set[v >> 18];
        *out++ = set[v >> 12 & 63];
        *out++ = i + 1 < len ? set[v >> 6 & 63] : '=';
        *out++ = i + 2 < len ? set[v & 63] : '=';
    }
    *out = 0;
}

/* The Sec-WebSocket-Accept that belongs to a key (RFC 6455 section 4.2.2). */
static inline void accept_of(const char *key, char out[WS_ACCEPT_LEN + 1]) {
    char text[96];
    uint8_t digest[20];
    int len = snprintf(text, sizeof text, "%.32s%s", key, WS_GUID);
    sha1(text, (size_t)len, digest);
    base64(digest, 20, out);
}

/* Return the value of a header of an HTTP head that ends in a zero byte, or NULL. */
static inline const char *header_value(const char *head, const char *name) {
    size_t len = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        const char *start = line + 2;
        if (strncasecmp(start, name, len) == 0 && start[len] == ':')
            return start + len + 1 + strspn(start + len + 1, " \t");
    }
    return NULL;
}

struct frame {
    uint8_t opcode;
    bool fin, masked;
    uint8_t mask[4];
    uint8_t *payload;
    size_t len;
};

/* Read one frame at `data`: its length on the wire, 0 when it is not all there, -1 when it is bad. */
static inline int64_t read_frame(uint8_t *data, size_t len, struct frame *f) {
    if (len < 2) return 0;
    size_t at = 2;
    uint64_t size = data[1] & 0x7f;
    if (data[0] & 0x70) return -1;
    if (size == 126) {
        if (len < 4) return 0;
        size = (uint64_t)data[2] << 8 | data[3], at = 4;
    } else if (size == 127) {
        if (len < 10) return 0;
        size = 0, at = 10;
        for (int i = 2; i < 10; i++) size = size << 8 | data[i];
    }
    if (size > WS_MAX_MESSAGE) return -1;
    f->masked = data[1] & 0x80;
    if (f->masked) {
        if (len < at + 4) return 0;
        memcpy(f->mask, data + at, 4), at += 4;
    }
    if (len < at + size) return 0;
    f->opcode = data[0] & 0x0f, f->fin = data[0] & 0x80;
    f->payload = data + at, f->len = size;
    return (int64_t)(at + size);
}

static inline void apply_mask(uint8_t *data, size_t len, const uint8_t mask[4]) {
    uint64_t wide;
    uint8_t twice[8];
    memcpy(twice, mask, 4), memcpy(twice + 4, mask, 4), memcpy(&wide, twice, 8);
    size_t i = 0;
    for (; i + 8 <= len; i += 8) {
        uint64_t v;
        memcpy(&v, data + i, 8), v ^= wide, memcpy(data + i, &v, 8);
    }
    for (; i < len; i++) data[i] ^= mask[i & 3];
}

/* Write a frame's header; with a mask the payload that follows must be masked. Return its length. */
static inline size_t write_header(uint8_t *out, uint8_t opcode, size_t len, const uint8_t *mask) {
    size_t at = 2;
    out[0] = 0x80 | opcode;
    if (len < 126) {
        out[1] = (uint8_t)len;
    } else if (len < 65536) {
        out[1] = 126, out[2] = (uint8_t)(len >> 8), out[3] = (uint8_t)len, at = 4;
    } else {
        out[1] = 127, at = 10;
        for (int i = 0; i < 8; i++) out[2 + i] = (uint8_t)((uint64_t)len >> (56 - 8 * i));
    }
    if (mask) {
        out[1] |= 0x80;
        memcpy(out + at, mask, 4), at += 4;
    }
    return at;
}

#endif
