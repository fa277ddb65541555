//! One dialect for each cloud: its HTTP API over the world, exactly as its documents say, in process and without sockets.
