"""The relay of UDP: which endpoint a datagram goes to, its sockets, its process, and the questions it answers."""
