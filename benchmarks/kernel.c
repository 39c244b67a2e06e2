/* The kernel's limit: what the work costs when nothing but system calls is left of the server.
 *
 * Accepts clients, answers handshakes, and does what a hub does with a bare send() for each client
 * and message: to everybody, to a room (?room=N) or back (?mode=echo). With `joined` it gathers what
 * one turn of its loop reads, and calls send() once for each client and turn. No limits, no queues: a
 * full socket blocks it. It is the yardstick of the tables, not a server to use.
 */
#include "ws.h"

#include <poll.h>
#include <sys/epoll.h>

enum { BACKLOG = 4096, READ_BYTES = 256 * 1024, ECHO_ROOM = UINT16_MAX, MAX_ROOMS = UINT16_MAX };

struct client {
    int fd;
    bool is_open;
    uint32_t room, place; /* its place among the members */
    struct buffer rest;
};

struct room {
    struct client **members;
    uint32_t count, cap;
    struct buffer waiting; /* with `joined`: for the end of the turn */
};

static struct room rooms[MAX_ROOMS + 1];
static struct client **clients; /* by descriptor */
static uint64_t descriptors;
static int epoll_fd;
static bool is_joined;
static struct room *dirty[MAX_ROOMS + 1];
static uint32_t dirty_count;
static uint8_t read_buffer[READ_BYTES + WS_MAX_HEADER];

static void join(struct client *c, uint32_t number) {
    struct room *room = &rooms[number];
    c->room = number, c->is_open = true;
    if (number == ECHO_ROOM) return;
    if (room->count == room->cap) {
        room->cap = room->cap ? room->cap * 2 : 16;
        room->members = must(realloc(room->members, room->cap * sizeof *room->members));
    }
    c->place = room->count;
    room->members[room->count++] = c;
}

static void drop(struct client *c) {
    struct room *room = &rooms[c->room];
    if (c->is_open && c->room != ECHO_ROOM) {
        struct client *last = room->members[--room->count];
        room->members[c->place] = last, last->place = c->place;
    }
    clients[c->fd] = NULL;
    close(c->fd);
    buffer_free(&c->rest);
    free(c);
}

/* Send everything, waiting where the socket is full. A broken socket shows when it is read. */
static void send_all(int fd, const uint8_t *data, size_t len) {
    while (len) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            poll(&wait, 1, 1000);
        } else if (n < 0) {
            return;
        } else {
            data += n, len -= (size_t)n;
        }
    }
}

static size_t answer_handshake(struct client *c, uint8_t *data, size_t len) {
    uint8_t *end = memmem(data, len, "\r\n\r\n", 4);
    if (!end) return 0;
    end[2] = 0;
    const char *head = (const char *)data, *key = header_value(head, "Sec-WebSocket-Key");
    char accept[WS_ACCEPT_LEN + 1], text[32] = "", answer[256];
    if (key) snprintf(text, sizeof text, "%.24s", key);
    accept_of(text, accept);
    int size = snprintf(answer, sizeof answer,
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept);
    send_all(c->fd, (uint8_t *)answer, (size_t)size);
    const char *line_end = strstr(head, "\r\n"), *room = strstr(head, "room=");
    const char *echo = strstr(head, "mode=echo");
    uint32_t number = room && room < line_end ? (uint32_t)atoi(room + 5) + 1 : 0;
    join(c, echo && echo < line_end ? ECHO_ROOM : number % MAX_ROOMS);
    return (size_t)(end + 4 - data);
}

static void send_to_members(struct room *room, const uint8_t *wire, size_t len) {
    for (uint32_t i = 0; i < room->count; i++) send_all(room->members[i]->fd, wire, len);
}

static void deliver(struct client *c, const uint8_t *wire, size_t len) {
    if (c->room == ECHO_ROOM) {
        send_all(c->fd, wire, len);
        return;
    }
    struct room *room = &rooms[c->room];
    if (!is_joined) {
        send_to_members(room, wire, len);
        return;
    }
    if (!room->waiting.len) dirty[dirty_count++] = room;
    buffer_add(&room->waiting, wire, len);
}

static void end_turn(void) {
    while (dirty_count) {
        struct room *room = dirty[--dirty_count];
        send_to_members(room, room->waiting.data, room->waiting.len);
        room->waiting.len = 0;
    }
}

/* Return false when the client has ended. */
static bool on_frame(struct client *c, struct frame *f) {
    apply_mask(f->payload, f->len, f->mask);
    if (f->opcode == OP_PONG) return true;
    uint8_t opcode = f->opcode == OP_PING ? OP_PONG : f->opcode, header[WS_MAX_HEADER];
    size_t size = write_header(header, opcode, f->len, NULL);
    uint8_t *wire = f->payload - size; /* the client's own header, with its mask, was longer */
    memcpy(wire, header, size);
    if (f->opcode == OP_TEXT || f->opcode == OP_BINARY) {
        deliver(c, wire, size + f->len);
        return true;
    }
    send_all(c->fd, wire, size + f->len);
    if (opcode != OP_CLOSE) return true;
    drop(c);
    return false;
}

static void on_readable(struct client *c) {
    ssize_t n = recv(c->fd, read_buffer, READ_BYTES, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        drop(c);
        return;
    }
    uint8_t *data = read_buffer;
    size_t len = (size_t)n, at = 0;
    bool was_kept = c->rest.len > 0;
    if (was_kept) {
        buffer_add(&c->rest, data, len);
        data = c->rest.data, len = c->rest.len;
    }
    if (!c->is_open) at = answer_handshake(c, data, len);
    struct frame f;
    for (int64_t size; c->is_open && (size = read_frame(data + at, len - at, &f)) != 0;) {
        if (size < 0 || !f.masked) {
            drop(c);
            return;
        }
        at += (size_t)size;
        if (!on_frame(c, &f)) return;
    }
    if (was_kept)
        buffer_drop(&c->rest, at);
    else
        buffer_add(&c->rest, data + at, len - at);
}

static void accept_all(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
        if ((uint64_t)fd >= descriptors) die("more descriptors than the limit");
        clients[fd] = must(calloc(1, sizeof **clients));
        clients[fd]->fd = fd;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
    }
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0) die("socket");
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0) die("bind");
    if (listen(fd, BACKLOG) < 0) die("listen");
    return fd;
}

int main(int argc, char **argv) {
    is_joined = argc == 3 && !strcmp(argv[2], "joined");
    if (argc != 2 && !is_joined) {
        fputs("kernel PORT [joined]\n", stderr);
        return 2;
    }
    descriptors = raise_descriptors();
    clients = must(calloc(descriptors, sizeof *clients));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on(atoi(argv[1]));
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[512];
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event) < 0) die("epoll_ctl");
    for (;;) {
        int n = epoll_wait(epoll_fd, events, 512, -1);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                accept_all(listener);
            else if (clients[fd])
                on_readable(clients[fd]);
        }
        end_turn();
    }
}
