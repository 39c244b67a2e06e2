// The hub of gorilla's chat example, which is DMMVC's hub too: one goroutine owns the clients, each
// client has a channel of 256 messages, a full channel disconnects, and a client's write pump glues
// what waits in its channel into one message, with newlines between. Rooms and echo are added.
//
// With -prepared a message is framed once for all clients (websocket.PreparedMessage) and goes out
// as a message of its own: no glue, but a write for each.
//
// Run:  gorilla [-prepared] PORT
package main

import (
	"flag"
	"log"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

const (
	writeWait      = 10 * time.Second
	pongWait       = 60 * time.Second
	pingPeriod     = (pongWait * 9) / 10
	maxMessageSize = 64 * 1024
	sendBuffer     = 256
)

var (
	newline  = []byte{'\n'}
	prepared = flag.Bool("prepared", false, "frame a message once for all clients")
	upgrader = websocket.Upgrader{
		ReadBufferSize:  1024,
		WriteBufferSize: 1024,
		CheckOrigin:     func(*http.Request) bool { return true },
	}
)

type outgoing struct {
	data     []byte
	prepared *websocket.PreparedMessage
}

func newOutgoing(data []byte) outgoing {
	if !*prepared {
		return outgoing{data: data}
	}
	message, err := websocket.NewPreparedMessage(websocket.TextMessage, data)
	if err != nil {
		log.Fatal(err)
	}
	return outgoing{prepared: message}
}

type publication struct {
	room string
	data []byte
}

type client struct {
	hub    *hub
	conn   *websocket.Conn
	send   chan outgoing
	room   string
	isEcho bool
}

type hub struct {
	rooms      map[string]map[*client]bool
	broadcast  chan publication
	register   chan *client
	unregister chan *client
}

func (h *hub) remove(c *client) {
	if h.rooms[c.room][c] {
		delete(h.rooms[c.room], c)
		close(c.send)
	}
}

func (h *hub) deliver(p publication) {
	message := newOutgoing(p.data)
	for c := range h.rooms[p.room] {
		select {
		case c.send <- message:
		default:
			h.remove(c)
		}
	}
}

func (h *hub) run() {
	for {
		select {
		case c := <-h.register:
			if h.rooms[c.room] == nil {
				h.rooms[c.room] = make(map[*client]bool)
			}
			h.rooms[c.room][c] = true
		case c := <-h.unregister:
			h.remove(c)
		case p := <-h.broadcast:
			h.deliver(p)
		}
	}
}

func (c *client) readPump() {
	defer func() {
		c.hub.unregister <- c
		c.conn.Close()
	}()
	c.conn.SetReadLimit(maxMessageSize)
	c.conn.SetReadDeadline(time.Now().Add(pongWait))
	c.conn.SetPongHandler(func(string) error {
		return c.conn.SetReadDeadline(time.Now().Add(pongWait))
	})
	for {
		_, message, err := c.conn.ReadMessage()
		if err != nil {
			return
		}
		if c.isEcho {
			c.send <- newOutgoing(message)
		} else {
			c.hub.broadcast <- publication{c.room, message}
		}
	}
}

func (c *client) write(message outgoing) error {
	c.conn.SetWriteDeadline(time.Now().Add(writeWait))
	if message.prepared != nil {
		return c.conn.WritePreparedMessage(message.prepared)
	}
	w, err := c.conn.NextWriter(websocket.TextMessage)
	if err != nil {
		return err
	}
	w.Write(message.data)
	for n := len(c.send); n > 0; n-- {
		more := <-c.send
		w.Write(newline)
		w.Write(more.data)
	}
	return w.Close()
}

func (c *client) writePump() {
	ticker := time.NewTicker(pingPeriod)
	defer func() {
		ticker.Stop()
		c.conn.Close()
	}()
	for {
		select {
		case message, ok := <-c.send:
			if !ok {
				c.conn.SetWriteDeadline(time.Now().Add(writeWait))
				c.conn.WriteMessage(websocket.CloseMessage, nil)
				return
			}
			if c.write(message) != nil {
				return
			}
		case <-ticker.C:
			c.conn.SetWriteDeadline(time.Now().Add(writeWait))
			if c.conn.WriteMessage(websocket.PingMessage, nil) != nil {
				return
			}
		}
	}
}

func main() {
	flag.Parse()
	h := &hub{
		rooms:      make(map[string]map[*client]bool),
		broadcast:  make(chan publication),
		register:   make(chan *client),
		unregister: make(chan *client),
	}
	go h.run()
	http.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		query := r.URL.Query()
		c := &client{h, conn, make(chan outgoing, sendBuffer), query.Get("room"), query.Has("mode")}
		h.register <- c
		go c.writePump()
		go c.readPump()
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+flag.Arg(0), nil))
}
