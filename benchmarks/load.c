/* The load generator: many WebSocket clients in one thread, every message checked and timed.
 *
 * Each payload names its publisher, its sequence number and the microsecond it was sent, in
 * characters that need no escaping in JSON. Each client keeps the next number it expects of each
 * publisher that it gets messages from; so what is lost, comes twice or comes out of order is known
 * exactly, and messages are counted, not bytes. The phases are: connect, warm up, settle (nothing is in flight), "begin",
 * measure, drain (nothing is in flight again), "end". With --control the generator waits for a line
 * on stdin after "begin" and after "end": whoever reads the server's CPU time then, reads exactly
 * what the counted messages have cost. Prints one JSON object per line; the last is the result.
 *
 * Not here: starting servers, reading their CPU time, comparing (measure.py does that).
 */
#include "ws.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

#include "histogram.h"

enum mode { FANOUT, ROOMS, ECHO, IDLE, HANDSHAKES };
enum dialect { PLAIN, GLUED, SOCKETIO };
enum phase { CONNECT, WARM, SETTLE, READY, MEASURE, DRAIN, DONE };
enum state { FREE, CONNECTING, UPGRADING, GREETING, OPEN, CLOSING, STALLED };

enum {
    MAX_PROCESSES = 16,
    MARKER_CHARS = 16, /* 3 of publisher, 5 of sequence, 8 of microseconds; 5 bits a character */
    SEQ_BITS = 25,
    SEQ_MASK = (1 << SEQ_BITS) - 1,
    MAX_PUBLISHER = (1 << 15) - 1,
    CONNECTING_AT_ONCE = 64,
    READ_BYTES = 256 * 1024,
    MISSING_SLOTS = 1 << 20,
    STALLED_RCVBUF_BYTES = 4096,
    STALLED_MSS_BYTES = 536, /* so that the server's own kernel buffer for them stays small too */
    HANDSHAKE_ADDRESSES = 16,
    CLIENTS_PER_ADDRESS = 20000,
    QUIET_NS = 200000000, /* between the last handshake and the first message */
};

static struct {
    enum mode mode;
    enum dialect dialect;
    const char *host, *path;
    int port;
    uint32_t clients, publishers, room_size, window, size, processes;
    uint64_t messages; /* per publisher and phase; 0: as many as the time allows */
    double rate, warm_s, measure_s, patience_s, drain_s, stall_percent;
    bool control, cookie;
} opt = {
    .host = "127.0.0.1", .path = "/ws", .clients = 1, .publishers = 0, .room_size = 10, .window = 1,
    .size = 128, .processes = 1, .warm_s = 1, .measure_s = 3, .patience_s = 3, .drain_s = 30,
};

struct report {
    uint64_t delivered, bytes, sent, lost, duplicated, reordered, damaged, stray, foreign;
    uint64_t disconnected, unfinished, handshakes, refused, pings, cpu_ns;
    struct histogram latency;
};

/* What the processes of one generator share. */
struct shared {
    _Atomic int phase, reached[MAX_PROCESSES];
    _Atomic uint64_t sent_to_all, settled_at[MAX_PROCESSES], progress[MAX_PROCESSES];
    _Atomic int live_publishers;
    struct report report[MAX_PROCESSES];
    uint32_t sent[]; /* by publisher */
};

struct conn {
    int fd;
    uint32_t id;
    enum state state;
    bool wants_write;
    char accept[WS_ACCEPT_LEN + 1];
    uint64_t began_at, published; /* messages of this phase */
    struct buffer rest, parts, out; /* a frame's beginning; a message's fragments; what waits */
};

static struct shared *shared;
static struct report *mine;
static struct conn *conns;
static uint32_t conn_count, first_id, process;
static uint32_t *next_seq; /* [connection][slot]: the next sequence number expected */
static uint32_t slots;
static uint32_t *room_live;
static uint64_t expected, advanced, live; /* of this process, stalled clients not included */
static uint32_t connecting, open_count, begun, publishing; /* publishing: not done yet */
static int epoll_fd, wake_fd, timer_fd = -1;
static uint64_t phase_started, last_progress, paced_turns, measured_ns;
static uint64_t began_cpu_ns;
static uint8_t *read_buffer, *frame_buffer, *body;
static size_t prefix_len, body_len;
static uint64_t missing[MISSING_SLOTS], missing_count;

static const char *mode_names[] = {"fanout", "rooms", "echo", "idle", "handshakes", NULL};
static const char *dialect_names[] = {"plain", "glued", "socketio", NULL};

/* ---- messages ---- */

/* Write the low 40 bits of `value` as eight characters from '0' to 'O', five bits each. */
static void pack(uint8_t *out, uint64_t value) {
    for (int i = 7; i >= 0; i--, value >>= 5) out[i] = (uint8_t)('0' + (value & 31));
}

/* Read what `pack` wrote; false when a character is none of the 32. */
static inline bool unpack(const uint8_t *in, uint64_t *value) {
    uint64_t v;
    memcpy(&v, in, 8);
    v = __builtin_bswap64(v) - UINT64_C(0x3030303030303030);
    if (v & UINT64_C(0xe0e0e0e0e0e0e0e0)) return false;
    v = (v & UINT64_C(0x1f001f001f001f00)) >> 3 | (v & UINT64_C(0x001f001f001f001f));
    v = (v & UINT64_C(0x03ff000003ff0000)) >> 6 | (v & UINT64_C(0x000003ff000003ff));
    *value = v >> 32 << 20 | (v & 0xfffff);
    return true;
}

static const uint64_t MICROSECONDS = (UINT64_C(1) << 40) - 1;

static void prepare_body(void) {
    const char *prefix = opt.dialect == SOCKETIO ? "42[\"m\",\"" : "";
    const char *suffix = opt.dialect == SOCKETIO ? "\"]" : "";
    prefix_len = strlen(prefix);
    body_len = prefix_len + opt.size + strlen(suffix);
    body = must(malloc(body_len + 1));
    frame_buffer = must(malloc(body_len + WS_MAX_HEADER));
    memcpy(body, prefix, prefix_len);
    memset(body + prefix_len, 'x', opt.size);
    memcpy(body + prefix_len + opt.size, suffix, strlen(suffix));
}

/* ---- accounting: what is expected, what came ---- */

static uint32_t room_of(uint32_t id) { return id / opt.room_size; }

static bool is_publisher(uint32_t id) { return id % opt.room_size < opt.publishers; }

static uint32_t *next_of(struct conn *c, uint32_t slot) {
    return &next_seq[(size_t)(c->id - first_id) * slots + slot];
}

static uint32_t publisher_at(struct conn *c, uint32_t slot) {
    return room_of(c->id) * opt.room_size + slot;
}

static bool is_stalled(uint32_t id) {
    if (opt.stall_percent <= 0 || is_publisher(id)) return false;
    uint64_t share = (uint64_t)(opt.stall_percent * 1000);
    return (uint64_t)(id + 1) * share / 100000 != (uint64_t)id * share / 100000;
}

/* How many messages this process still waits for. */
static int64_t outstanding(void) {
    if (opt.mode == FANOUT) expected = live * atomic_load(&shared->sent_to_all);
    return (int64_t)(expected - advanced);
}

static uint64_t missing_key(struct conn *c, uint32_t slot, uint32_t seq) {
    return (uint64_t)c->id << 40 | (uint64_t)slot << SEQ_BITS | (seq & SEQ_MASK);
}

static uint64_t *missing_place(uint64_t key, bool to_insert) {
    size_t at = (size_t)(key * UINT64_C(0x9E3779B97F4A7C15) >> 44) % MISSING_SLOTS;
    for (; missing[at]; at = (at + 1) % MISSING_SLOTS) {
        if (missing[at] == key + 2) return &missing[at];
        if (to_insert && missing[at] == 1) return &missing[at];
    }
    return to_insert ? &missing[at] : NULL;
}

/* Note `count` messages as lost. They are remembered, since they may only be late. */
static void note_lost(struct conn *c, uint32_t slot, uint32_t from, uint32_t count) {
    mine->lost += count;
    for (uint32_t i = 0; i < count && missing_count < MISSING_SLOTS / 2; i++, missing_count++) {
        uint64_t key = missing_key(c, slot, from + i);
        *missing_place(key, true) = key + 2;
    }
}

/* Record one message. Return whether it is new. */
static bool record(struct conn *c, uint32_t slot, uint32_t seq) {
    uint32_t *next = next_of(c, slot);
    uint32_t ahead = (seq - *next) & SEQ_MASK;
    if (ahead > SEQ_MASK / 2) {
        uint64_t *place = missing_place(missing_key(c, slot, seq), false);
        if (!place) {
            mine->duplicated++;
            return false;
        }
        *place = 1; /* a grave: the search goes on behind it */
        mine->lost--, mine->reordered++;
        return true;
    }
    if (ahead) note_lost(c, slot, *next, ahead);
    *next += ahead + 1;
    advanced += ahead + 1;
    return true;
}

static void publish(struct conn *c, uint64_t at_ns);
static void flush(struct conn *c);

static bool is_sending(void) {
    int phase = atomic_load_explicit(&shared->phase, memory_order_relaxed);
    return phase == WARM || phase == MEASURE;
}

static bool may_publish_more(struct conn *c) {
    return is_sending() && (opt.messages == 0 || c->published < opt.messages);
}

static void on_payload(struct conn *c, const uint8_t *p, size_t len, uint64_t now_us) {
    uint64_t head, sent_us;
    if (len && (p[0] < '0' || p[0] > 'O')) {
        mine->foreign++;
        return;
    }
    const uint8_t *padding = body + prefix_len + MARKER_CHARS;
    if (len != opt.size || !unpack(p, &head) || !unpack(p + 8, &sent_us) ||
        memcmp(p + MARKER_CHARS, padding, len - MARKER_CHARS) != 0) {
        mine->damaged++;
        return;
    }
    uint32_t publisher = (uint32_t)(head >> SEQ_BITS), slot = publisher % opt.room_size;
    if (room_of(publisher) != room_of(c->id) || slot >= slots) {
        mine->stray++;
        return;
    }
    if (!record(c, slot, (uint32_t)head & SEQ_MASK)) return;
    mine->delivered++;
    mine->bytes += len;
    histogram_add(&mine->latency, (now_us - sent_us) & MICROSECONDS);
    if (opt.mode != FANOUT && publisher == c->id && may_publish_more(c)) publish(c, now_ns());
}

/* ---- Socket.IO, as much of it as its messages need (Engine.IO 4 in WebSocket frames) ---- */

static void send_frame(struct conn *c, uint8_t opcode, const void *data, size_t len);

static void on_socketio(struct conn *c, const uint8_t *p, size_t len, uint64_t now_us) {
    if (len && p[0] == '2') {
        send_frame(c, OP_TEXT, "3", 1);
        mine->pings++;
    } else if (len && p[0] == '0') {
        send_frame(c, OP_TEXT, "40", 2);
    } else if (len > 1 && p[0] == '4' && p[1] == '0') {
        if (c->state == GREETING) c->state = OPEN, open_count++, connecting--;
    } else if (len == body_len && memcmp(p, body, prefix_len) == 0) {
        on_payload(c, p + prefix_len, opt.size, now_us);
    } else {
        mine->foreign++;
    }
}

static void on_glued(struct conn *c, const uint8_t *p, size_t len, uint64_t now_us) {
    const uint8_t *end = p + len, *newline;
    while ((newline = memchr(p, '\n', (size_t)(end - p)))) {
        on_payload(c, p, (size_t)(newline - p), now_us);
        p = newline + 1;
    }
    on_payload(c, p, (size_t)(end - p), now_us);
}

static void on_message(struct conn *c, const uint8_t *p, size_t len, uint64_t now_us) {
    if (opt.dialect == PLAIN)
        on_payload(c, p, len, now_us);
    else if (opt.dialect == GLUED)
        on_glued(c, p, len, now_us);
    else
        on_socketio(c, p, len, now_us);
}

/* ---- connections ---- */

static void watch(struct conn *c, uint32_t events, int operation) {
    struct epoll_event event = {.events = events, .data.u32 = c->id - first_id};
    if (epoll_ctl(epoll_fd, operation, c->fd, &event) < 0) die("epoll_ctl");
}

static void fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    printf("{\"event\": \"error\", \"message\": \"");
    vprintf(format, args);
    printf("\"}\n");
    fflush(stdout);
    va_end(args);
    exit(1);
}

/* Stop accounting for a live client: what it has not got is lost to it. */
static void strike(struct conn *c) {
    uint64_t got = 0, due = 0;
    for (uint32_t slot = 0; slot < slots; slot++) {
        uint32_t sent = shared->sent[publisher_at(c, slot)];
        got += *next_of(c, slot), due += sent;
    }
    mine->lost += due - got;
    mine->disconnected++;
    advanced -= got, live--;
    room_live[room_of(c->id)]--;
    if (opt.mode != FANOUT) expected -= due;
    if (!is_publisher(c->id)) return;
    atomic_fetch_sub(&shared->live_publishers, 1);
    if (may_publish_more(c)) publishing--;
}

static void forget(struct conn *c) {
    close(c->fd);
    buffer_free(&c->rest), buffer_free(&c->parts), buffer_free(&c->out);
    c->state = FREE, c->fd = -1, c->wants_write = false;
}

static void begin_connection(struct conn *c);

static void on_end(struct conn *c, const char *why) {
    enum state was = c->state;
    forget(c);
    if (opt.mode == HANDSHAKES) {
        connecting--;
        if (was == CLOSING)
            mine->handshakes++;
        else
            mine->refused++;
        return;
    }
    if (was == OPEN)
        strike(c);
    else
        fail("client %u was not let in: %s", c->id, why);
}

static void flush(struct conn *c) {
    while (c->out.len) {
        ssize_t n = send(c->fd, c->out.data, c->out.len, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) {
            c->out.len = 0; /* the reading side will see the end */
            return;
        }
        if (n < 0) break;
        buffer_drop(&c->out, (size_t)n);
    }
    if ((c->out.len > 0) != c->wants_write) {
        c->wants_write = c->out.len > 0;
        watch(c, EPOLLIN | (c->wants_write ? EPOLLOUT : 0), EPOLL_CTL_MOD);
    }
}

static void queue_frame(struct conn *c, uint8_t opcode, const void *data, size_t len) {
    static uint32_t key = 0x9d2c5681;
    uint8_t mask[4];
    key ^= key << 13, key ^= key >> 17, key ^= key << 5;
    memcpy(mask, &key, 4);
    size_t at = write_header(frame_buffer, opcode, len, mask);
    memcpy(frame_buffer + at, data, len);
    apply_mask(frame_buffer + at, len, mask);
    buffer_add(&c->out, frame_buffer, at + len);
}

static void send_frame(struct conn *c, uint8_t opcode, const void *data, size_t len) {
    queue_frame(c, opcode, data, len);
    flush(c);
}

/* Queue one message of this publisher; the caller flushes. */
static void publish(struct conn *c, uint64_t at_ns) {
    uint32_t seq = shared->sent[c->id]++ & SEQ_MASK;
    pack(body + prefix_len, (uint64_t)c->id << SEQ_BITS | seq);
    pack(body + prefix_len + 8, at_ns / 1000 & MICROSECONDS);
    if (opt.mode == FANOUT)
        atomic_fetch_add(&shared->sent_to_all, 1);
    else
        expected += room_live[room_of(c->id)];
    mine->sent++;
    if (++c->published == opt.messages) publishing--;
    queue_frame(c, OP_TEXT, body, body_len);
}

static void bind_source(struct conn *c) {
    uint32_t index = opt.mode == HANDSHAKES ? begun % HANDSHAKE_ADDRESSES : c->id / CLIENTS_PER_ADDRESS;
    if (index == 0 || ntohl(inet_addr(opt.host)) >> 24 != 127) return;
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001 + index)};
    set_option(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from) < 0) die("bind");
}

static void begin_connection(struct conn *c) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)opt.port)};
    to.sin_addr.s_addr = inet_addr(opt.host);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket");
    set_option(c->fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (is_stalled(c->id)) {
        set_option(c->fd, SOL_SOCKET, SO_RCVBUF, STALLED_RCVBUF_BYTES);
        set_option(c->fd, IPPROTO_TCP, TCP_MAXSEG, STALLED_MSS_BYTES);
    }
    bind_source(c);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    c->state = CONNECTING, c->began_at = now_ns();
    connecting++, begun++;
    watch(c, EPOLLOUT, EPOLL_CTL_ADD);
}

static void ask(struct conn *c) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        on_end(c, strerror(error));
        return;
    }
    uint32_t raw[4] = {c->id, begun, (uint32_t)c->began_at, 0x68756262};
    char key[25], room[32] = "", query[64] = "", cookie[64] = "", request[512];
    base64((uint8_t *)raw, sizeof raw, key);
    accept_of(key, c->accept);
    if (opt.mode == ROOMS) snprintf(room, sizeof room, "room=%u", room_of(c->id));
    if (opt.mode == ECHO) snprintf(room, sizeof room, "mode=echo");
    if (*room) snprintf(query, sizeof query, "%c%s", strchr(opt.path, '?') ? '&' : '?', room);
    if (*room && opt.cookie) snprintf(cookie, sizeof cookie, "Cookie: %s\r\n", room);
    int len = snprintf(request, sizeof request,
                       "GET %s%s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\n"
                       "Connection: Upgrade\r\nSec-WebSocket-Key: %s\r\n"
                       "Sec-WebSocket-Version: 13\r\n%s\r\n",
                       opt.path, query, opt.host, opt.port, key, cookie);
    c->state = UPGRADING;
    watch(c, EPOLLIN, EPOLL_CTL_MOD);
    buffer_add(&c->out, request, (size_t)len);
    flush(c);
}

/* Read the answer to the handshake; return its length, 0 when it is not all there. */
static size_t read_answer(struct conn *c, uint8_t *data, size_t len) {
    uint8_t *end = memmem(data, len, "\r\n\r\n", 4);
    if (!end) return 0;
    char head[2048] = "";
    size_t head_len = (size_t)(end + 2 - data);
    if (head_len >= sizeof head) fail("an answer to the handshake has %zu bytes", head_len);
    memcpy(head, data, head_len);
    const char *accept = header_value(head, "Sec-WebSocket-Accept");
    const char *upgrade = header_value(head, "Upgrade");
    if (strncmp(head, "HTTP/1.1 101", 12) != 0 || !upgrade || strncasecmp(upgrade, "websocket", 9) != 0)
        fail("a handshake was answered with %.*s", (int)strcspn(head, "\r\n\""), head);
    if (!accept || strncmp(accept, c->accept, WS_ACCEPT_LEN) != 0)
        fail("a handshake was answered with the wrong Sec-WebSocket-Accept");
    if (header_value(head, "Sec-WebSocket-Extensions")) fail("the server chose an extension");
    return head_len + 2;
}

static void on_upgraded(struct conn *c) {
    if (opt.mode == HANDSHAKES) {
        static const uint8_t normal[2] = {0x03, 0xe8};
        histogram_add(&mine->latency, (now_ns() - c->began_at) / 1000);
        c->state = CLOSING;
        send_frame(c, OP_CLOSE, normal, 2);
    } else if (opt.dialect == SOCKETIO) {
        c->state = GREETING;
    } else {
        c->state = OPEN, open_count++, connecting--;
    }
}

static void on_fragment(struct conn *c, struct frame *f, uint64_t now_us) {
    buffer_add(&c->parts, f->payload, f->len);
    if (!f->fin) return;
    on_message(c, c->parts.data, c->parts.len, now_us);
    c->parts.len = 0;
}

/* Return false when the connection has ended. */
static bool on_control(struct conn *c, struct frame *f) {
    if (f->opcode == OP_PING) {
        mine->pings++;
        send_frame(c, OP_PONG, f->payload, f->len);
    } else if (f->opcode == OP_CLOSE) {
        if (c->state != CLOSING) send_frame(c, OP_CLOSE, f->payload, f->len < 2 ? 0 : 2);
        on_end(c, "the server sent a close frame");
        return false;
    }
    return true;
}

/* Take all whole frames; return how many bytes they had, or -1 when the connection has ended. */
static int64_t take_frames(struct conn *c, uint8_t *data, size_t len, uint64_t now_us) {
    size_t at = 0;
    struct frame f;
    for (;;) {
        int64_t size = read_frame(data + at, len - at, &f);
        if (size == 0) return (int64_t)at;
        if (size < 0 || f.masked) fail("client %u got a frame that is none", c->id);
        at += (size_t)size;
        if (f.opcode & 8) {
            if (!on_control(c, &f)) return -1;
        } else if (f.fin && f.opcode != OP_CONTINUATION) {
            on_message(c, f.payload, f.len, now_us);
        } else {
            on_fragment(c, &f, now_us);
        }
    }
}

static void on_readable(struct conn *c) {
    size_t kept = c->rest.len, need = kept + READ_BYTES;
    static size_t capacity;
    if (need > capacity) read_buffer = must(realloc(read_buffer, capacity = need));
    if (kept) memcpy(read_buffer, c->rest.data, kept);
    ssize_t n = recv(c->fd, read_buffer + kept, READ_BYTES, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        on_end(c, n == 0 ? "the server closed the connection" : strerror(errno));
        return;
    }
    size_t len = kept + (size_t)n, at = 0;
    if (c->state == UPGRADING) {
        at = read_answer(c, read_buffer, len);
        if (at) on_upgraded(c);
    }
    if (c->state != UPGRADING) {
        int64_t used = take_frames(c, read_buffer + at, len - at, now_ns() / 1000);
        if (used < 0) return;
        at += (size_t)used;
    }
    c->rest.len = 0;
    buffer_add(&c->rest, read_buffer + at, len - at);
    flush(c);
}

static void on_event(struct conn *c, uint32_t events) {
    if (c->state == FREE || c->state == STALLED) return;
    if (c->state == CONNECTING) {
        ask(c);
        return;
    }
    if (events & EPOLLOUT) flush(c);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(c);
}

/* ---- phases ---- */

static int phase_now(void) { return atomic_load(&shared->phase); }

static void begin_connections(void) {
    for (; begun < conn_count && connecting < CONNECTING_AT_ONCE; ) begin_connection(&conns[begun]);
}

/* Everybody is connected: begin accounting, and stop reading for who is to stall. */
static void begin_accounting(void) {
    for (uint32_t i = 0; i < conn_count; i++) {
        struct conn *c = &conns[i];
        if (is_stalled(c->id)) {
            epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
            c->state = STALLED;
            continue;
        }
        live++, room_live[room_of(c->id)]++;
        if (is_publisher(c->id)) atomic_fetch_add(&shared->live_publishers, 1);
    }
}

static void start_phase(void) {
    phase_started = last_progress = now_ns();
    atomic_store(&shared->progress[process], last_progress);
    paced_turns = publishing = 0;
    for (uint32_t i = 0; i < conn_count; i++) {
        conns[i].published = 0;
        publishing += conns[i].state == OPEN && is_publisher(conns[i].id);
    }
}

static void publish_many(struct conn *c, uint32_t count) {
    uint64_t at = now_ns();
    for (uint32_t i = 0; i < count && may_publish_more(c); i++) publish(c, at);
    flush(c);
}

static bool has_everybody_all(void) {
    uint64_t sent = atomic_load(&shared->sent_to_all);
    for (uint32_t p = 0; p < opt.processes; p++)
        if (atomic_load(&shared->settled_at[p]) != sent) return false;
    return true;
}

static uint64_t due_at(uint64_t turn) {
    return phase_started + (uint64_t)((double)turn * 1e9 / opt.rate);
}

/* A message carries the time it was due, so a generator that is late hides nothing. */
static void publish_paced(uint64_t now) {
    for (; due_at(paced_turns) <= now; paced_turns++) {
        struct conn *c = &conns[paced_turns % opt.publishers];
        if (c->state == OPEN && may_publish_more(c)) publish(c, due_at(paced_turns));
    }
    for (uint32_t i = 0; i < opt.publishers; i++)
        if (conns[i].state == OPEN) flush(&conns[i]);
    uint64_t due = due_at(paced_turns);
    struct itimerspec at = {.it_value = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)}};
    if (timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &at, NULL) < 0) die("timerfd_settime");
}

/* Fan-out: the first process publishes, when all have the last burst or when the clock says so. */
static void publish_to_all(uint64_t now) {
    if (process != 0 || atomic_load(&shared->live_publishers) == 0) return;
    if (opt.rate > 0) {
        publish_paced(now);
    } else if (has_everybody_all()) {
        for (uint32_t i = 0; i < opt.publishers; i++)
            if (conns[i].state == OPEN) publish_many(&conns[i], opt.window);
    }
}

/* Rooms and echo: everybody begins with a window of messages and goes on as their own come back. */
static void begin_publishing(void) {
    if (opt.mode != ROOMS && opt.mode != ECHO) return;
    for (uint32_t i = 0; i < conn_count; i++)
        if (conns[i].state == OPEN && is_publisher(conns[i].id)) publish_many(&conns[i], opt.window);
}

static void reuse_free(void) {
    for (uint32_t i = 0; i < conn_count; i++)
        if (conns[i].state == FREE) begin_connection(&conns[i]);
}

static void note_progress(uint64_t now) {
    static uint64_t seen;
    uint64_t mark = advanced + mine->handshakes + open_count;
    if (mark != seen) last_progress = now;
    seen = mark;
    atomic_store(&shared->progress[process], last_progress);
    if (opt.mode != FANOUT || outstanding() != 0) return;
    uint64_t sent = atomic_load(&shared->sent_to_all);
    if (atomic_exchange(&shared->settled_at[process], sent) != sent && process != 0) {
        uint64_t one = 1;
        if (write(wake_fd, &one, sizeof one) < 0) die("eventfd");
    }
}

static bool is_stuck(uint64_t now) {
    uint64_t last = 0;
    for (uint32_t p = 0; p < opt.processes; p++) {
        uint64_t at = atomic_load(&shared->progress[p]);
        if (at > last) last = at;
    }
    return now > last && now - last > (uint64_t)(opt.patience_s * 1e9);
}

/* What nobody can be waiting for any more is lost. */
static void write_off(void) {
    for (uint32_t i = 0; i < conn_count; i++) {
        struct conn *c = &conns[i];
        if (c->state != OPEN) continue;
        for (uint32_t slot = 0; slot < slots; slot++) {
            uint32_t *next = next_of(c, slot), due = shared->sent[publisher_at(c, slot)] - *next;
            if (due) note_lost(c, slot, *next, due);
            *next += due, advanced += due;
        }
    }
}

/* Whether this process has nothing in flight, or has given up waiting for it. */
static bool is_settled(uint64_t now) {
    if (opt.mode == HANDSHAKES) {
        mine->unfinished = is_stuck(now) ? connecting : 0;
        return connecting == 0 || mine->unfinished;
    }
    if (outstanding() == 0) return true;
    if (is_stuck(now)) {
        write_off();
        return true;
    }
    if (now - phase_started < (uint64_t)(opt.drain_s * 1e9)) return false;
    mine->unfinished = (uint64_t)outstanding();
    return true;
}

static bool is_time_over(uint64_t now) {
    double limit_s = phase_now() == WARM ? opt.warm_s : opt.measure_s;
    bool has_publishers = opt.mode != IDLE && opt.mode != HANDSHAKES;
    if (has_publishers && atomic_load(&shared->live_publishers) == 0) return true;
    if (has_publishers && opt.messages) return publishing == 0 || is_stuck(now);
    return process != 0 || now - phase_started >= (uint64_t)(limit_s * 1e9);
}

static bool is_everybody_in(uint64_t now) {
    if (opt.mode == HANDSHAKES) return true;
    if (open_count < conn_count && is_stuck(now))
        fail("%u of %u clients got in, then no more", open_count, conn_count);
    return open_count == conn_count && now > last_progress + QUIET_NS;
}

/* Whether this process has done what the phase asks of it. */
static bool is_phase_done(uint64_t now) {
    switch (phase_now()) {
    case CONNECT: return is_everybody_in(now);
    case READY: return true;
    case WARM:
    case MEASURE: return is_time_over(now);
    default: return is_settled(now);
    }
}

static uint64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Begin to measure: what happened before counts only where it was wrong. */
static void reset_report(void) {
    mine->delivered = mine->bytes = mine->sent = mine->handshakes = mine->unfinished = 0;
    memset(&mine->latency, 0, sizeof mine->latency);
    began_cpu_ns = cpu_ns();
}

static void enter(int phase) {
    start_phase();
    if (phase == READY) reset_report();
    if (phase == WARM || phase == MEASURE) begin_publishing();
    if (phase == DONE) mine->cpu_ns = cpu_ns() - began_cpu_ns;
}

/* Report once, and before anybody publishes, that this process has come to the end of a phase. */
static void reach(int phase) {
    if (atomic_load(&shared->reached[process]) >= phase) return;
    if (phase == CONNECT && opt.mode != HANDSHAKES) begin_accounting();
    atomic_store(&shared->reached[process], phase);
}

static void pump(int timeout_ms) {
    struct epoll_event events[512];
    int n = epoll_wait(epoll_fd, events, 512, timeout_ms);
    if (n < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < n; i++) {
        uint64_t ticks;
        if (events[i].data.u32 < conn_count)
            on_event(&conns[events[i].data.u32], events[i].events);
        else if (events[i].data.u32 == UINT32_MAX && read(wake_fd, &ticks, sizeof ticks) < 0) continue;
        else if (events[i].data.u32 == UINT32_MAX - 1 && read(timer_fd, &ticks, sizeof ticks) < 0) continue;
    }
}

static void watch_other(int fd, uint32_t mark) {
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = mark};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
}

/* Report `event` and wait for a line, while pings still get their answers. */
static void rendezvous(const char *event) {
    if (!opt.control) return;
    printf("{\"event\": \"%s\", \"clients\": %u}\n", event, opt.clients);
    fflush(stdout);
    fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK);
    char c = 0;
    while (c != '\n') {
        ssize_t n = read(0, &c, 1);
        if (n == 0) return;
        if (n < 0 && errno != EAGAIN) die("stdin");
        if (n < 0) pump(2);
    }
}

static bool have_all_reached(int phase) {
    for (uint32_t p = 0; p < opt.processes; p++)
        if (atomic_load(&shared->reached[p]) < phase) return false;
    return true;
}

/* The first process leads: the next phase begins when all have reached the end of this one. */
static void lead(void) {
    int phase = phase_now();
    if (!have_all_reached(phase)) return;
    if (phase == SETTLE) rendezvous("begin");
    if (phase == READY) measured_ns = now_ns();
    if (phase == DRAIN) measured_ns = now_ns() - measured_ns;
    if (phase == DRAIN) rendezvous("end");
    atomic_store(&shared->phase, phase + 1);
}

static int wait_ms(uint64_t now) {
    uint64_t limit = phase_now() == WARM ? (uint64_t)(opt.warm_s * 1e9) : (uint64_t)(opt.measure_s * 1e9);
    uint64_t left = now - phase_started < limit ? (limit - (now - phase_started)) / 1000000 + 1 : 20;
    int most = process == 0 ? 20 : 2;
    return left < (uint64_t)most ? (int)left : most;
}

static void run(void) {
    int entered = CONNECT;
    start_phase();
    while (entered != DONE) {
        uint64_t now = now_ns();
        if (entered == CONNECT && opt.mode != HANDSHAKES) begin_connections();
        if (is_sending() && opt.mode == HANDSHAKES) reuse_free();
        if (is_sending() && opt.mode == FANOUT) publish_to_all(now);
        if (is_phase_done(now)) reach(entered);
        if (process == 0) lead();
        if (phase_now() != entered) {
            entered = phase_now();
            enter(entered);
            continue;
        }
        pump(wait_ms(now));
        note_progress(now_ns());
    }
}

/* ---- start and end ---- */

static void lay_out(uint32_t p) {
    uint32_t unit = opt.mode == ROOMS ? opt.room_size : 1, units = (opt.clients + unit - 1) / unit;
    uint32_t last = p + 1 == opt.processes ? opt.clients : units * (p + 1) / opt.processes * unit;
    process = p, first_id = units * p / opt.processes * unit, conn_count = last - first_id;
    mine = &shared->report[p];
    if (conn_count + 16 > raise_descriptors())
        fail("%u clients a process are more than its descriptors; use more --processes", conn_count);
    conns = must(calloc(conn_count, sizeof *conns));
    for (uint32_t i = 0; i < conn_count; i++) conns[i].id = first_id + i, conns[i].fd = -1;
    next_seq = must(calloc((size_t)conn_count * slots, sizeof *next_seq));
    room_live = must(calloc(opt.clients / opt.room_size + 1, sizeof *room_live));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0) die("epoll");
    if (p == 0) watch_other(wake_fd, UINT32_MAX);
    if (opt.rate > 0) {
        timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
        watch_other(timer_fd, UINT32_MAX - 1);
    }
}

static void merge(struct report *into, const struct report *from) {
    uint64_t *sum = (uint64_t *)into;
    const uint64_t *add = (const uint64_t *)from;
    uint64_t most = into->cpu_ns > from->cpu_ns ? into->cpu_ns : from->cpu_ns;
    for (size_t i = 0; i < offsetof(struct report, latency) / sizeof *sum; i++) sum[i] += add[i];
    into->cpu_ns = most; /* of the busiest process */
    histogram_merge(&into->latency, &from->latency);
}

static void print_counts(const struct report *r) {
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {
        {"delivered", r->delivered}, {"bytes", r->bytes}, {"sent", r->sent}, {"lost", r->lost},
        {"duplicated", r->duplicated}, {"reordered", r->reordered}, {"damaged", r->damaged},
        {"stray", r->stray}, {"foreign", r->foreign}, {"disconnected", r->disconnected},
        {"unfinished", r->unfinished}, {"handshakes", r->handshakes}, {"refused", r->refused},
        {"pings", r->pings},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        printf(", \"%s\": %lu", rows[i].name, (unsigned long)rows[i].value);
}

static void print_result(const struct report *r) {
    static const struct {
        const char *name;
        double share;
    } at[] = {{"p50", .5}, {"p90", .9}, {"p99", .99}, {"p99_9", .999}};
    double wall_s = (double)measured_ns / 1e9, share = (double)r->cpu_ns / (double)measured_ns;
    uint32_t stalled = 0;
    for (uint32_t id = 0; id < opt.clients; id++) stalled += is_stalled(id);
    printf("{\"event\": \"result\", \"mode\": \"%s\", \"clients\": %u", mode_names[opt.mode], opt.clients);
    print_counts(r);
    printf(", \"stalled\": %u, \"wall_s\": %.6f, \"latency_us\": {", stalled, wall_s);
    for (size_t i = 0; i < sizeof at / sizeof *at; i++)
        printf("\"%s\": %lu, ", at[i].name, (unsigned long)histogram_at(&r->latency, at[i].share));
    printf("\"max\": %lu}, ", (unsigned long)r->latency.max);
    printf("\"generator_cpu_share\": %.4f, \"generator_was_busy\": %s}\n", share,
           share > 0.95 ? "true" : "false");
}

static int index_of(const char *name, const char *const *names) {
    for (int i = 0; names[i]; i++)
        if (strcmp(names[i], name) == 0) return i;
    fprintf(stderr, "load: %s is none of its names\n", name);
    exit(2);
}

static void set_mode(const char *name) {
    if (strcmp(name, "burst") == 0) {
        opt.mode = FANOUT, opt.window = 512;
    } else {
        opt.mode = (enum mode)index_of(name, mode_names);
    }
}

static void usage(void) {
    fputs("load --port P --mode fanout|rooms|echo|idle|handshakes|burst [--clients N]\n"
          "  --publishers T  who publishes: in fan-out the first T (1), in rooms T of each (all)\n"
          "  --room-size K   clients of a room (10)\n"
          "  --window W      messages in flight: fan-out sends the next W when all have the last\n"
          "  --rate R        fan-out: R messages a second by the clock instead\n"
          "  --size B        bytes of a message, 16 or more (128)\n"
          "  --warm S --seconds S   how long (1, 3)\n"
          "  --messages M    so many messages of each publisher instead, in each phase\n"
          "  --stall P       P percent of the clients stop reading after the start\n"
          "  --patience S --drain S   no message for so long is a loss (3); wait at most (30)\n"
          "  --dialect plain|glued|socketio   glued: newlines part the messages of a frame\n"
          "  --host A --path /ws --processes G\n"
          "  --cookie        send the room in a cookie too\n"
          "  --control       wait for a line on stdin after \"begin\" and after \"end\"\n",
          stderr);
    exit(2);
}

static void set_option_by_letter(int letter) {
    switch (letter) {
    case 'p': opt.port = atoi(optarg); break;
    case 'm': set_mode(optarg); break;
    case 'n': opt.clients = (uint32_t)strtoul(optarg, NULL, 10); break;
    case 't': opt.publishers = (uint32_t)strtoul(optarg, NULL, 10); break;
    case 'k': opt.room_size = (uint32_t)strtoul(optarg, NULL, 10); break;
    case 'w': opt.window = (uint32_t)strtoul(optarg, NULL, 10); break;
    case 'r': opt.rate = atof(optarg); break;
    case 'b': opt.size = (uint32_t)strtoul(optarg, NULL, 10); break;
    case 'W': opt.warm_s = atof(optarg); break;
    case 's': opt.measure_s = atof(optarg); break;
    case 'M': opt.messages = strtoull(optarg, NULL, 10); break;
    case 'S': opt.stall_percent = atof(optarg); break;
    case 'P': opt.patience_s = atof(optarg); break;
    case 'D': opt.drain_s = atof(optarg); break;
    case 'd': opt.dialect = (enum dialect)index_of(optarg, dialect_names); break;
    case 'h': opt.host = optarg; break;
    case 'u': opt.path = optarg; break;
    case 'g': opt.processes = (uint32_t)strtoul(optarg, NULL, 10); break;
    case 'c': opt.control = true; break;
    case 'C': opt.cookie = true; break;
    default: usage();
    }
}

static void read_options(int argc, char **argv) {
    static const struct option known[] = {
        {"port", 1, 0, 'p'},     {"mode", 1, 0, 'm'},     {"clients", 1, 0, 'n'},
        {"publishers", 1, 0, 't'},  {"room-size", 1, 0, 'k'}, {"window", 1, 0, 'w'},
        {"rate", 1, 0, 'r'},     {"size", 1, 0, 'b'},     {"warm", 1, 0, 'W'},
        {"seconds", 1, 0, 's'},  {"messages", 1, 0, 'M'}, {"stall", 1, 0, 'S'},
        {"patience", 1, 0, 'P'}, {"drain", 1, 0, 'D'},    {"dialect", 1, 0, 'd'},
        {"host", 1, 0, 'h'},     {"path", 1, 0, 'u'},     {"processes", 1, 0, 'g'},
        {"control", 0, 0, 'c'},  {"cookie", 0, 0, 'C'},
        {0, 0, 0, 0},
    };
    int letter;
    while ((letter = getopt_long(argc, argv, "", known, NULL)) != -1) set_option_by_letter(letter);
    if (opt.mode != ROOMS) opt.room_size = opt.mode == ECHO ? 1 : opt.clients;
    if (opt.publishers == 0) opt.publishers = opt.mode == ROOMS ? opt.room_size : 1;
    if (opt.publishers > opt.room_size) opt.publishers = opt.room_size;
    slots = opt.mode == FANOUT || opt.mode == ROOMS || opt.mode == ECHO ? opt.publishers : 1;
    bool is_possible = opt.port > 0 && opt.clients > 0 && opt.room_size > 0 && opt.window > 0 &&
                       opt.size >= MARKER_CHARS && opt.size <= WS_MAX_MESSAGE / 2 &&
                       opt.processes >= 1 && opt.processes <= MAX_PROCESSES &&
                       opt.processes <= opt.clients && optind == argc;
    if (!is_possible) usage();
    if ((opt.mode == ROOMS || opt.mode == ECHO) && opt.clients > MAX_PUBLISHER)
        fail("more than %d publishers have no place in a message", MAX_PUBLISHER);
}

static void on_child_end(int signal_number) {
    (void)signal_number;
    if (atomic_load(&shared->phase) != DONE) _exit(1); /* it has said why */
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    size_t size = sizeof *shared + sizeof(uint32_t) * ((size_t)opt.clients + opt.room_size);
    shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) die("mmap");
    for (int i = 0; i < MAX_PROCESSES; i++) shared->reached[i] = -1;
    wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    prepare_body();
    uint32_t p = opt.processes;
    signal(SIGPIPE, SIG_IGN);
    while (--p > 0) {
        pid_t child = fork();
        if (child < 0) die("fork");
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGTERM);
            lay_out(p);
            run();
            _exit(0);
        }
    }
    signal(SIGCHLD, on_child_end);
    lay_out(0);
    run();
    for (int status; waitpid(-1, &status, 0) > 0;)
        if (status != 0) fail("a process of the generator failed");
    struct report *total = must(calloc(1, sizeof *total));
    for (p = 0; p < opt.processes; p++) merge(total, &shared->report[p]);
    print_result(total);
    return 0;
}
