"""HTTP: requests and answers, connections, sockets."""
