"""Models: what the pages are about. No web, no sockets, no event loop; controllers call them."""
