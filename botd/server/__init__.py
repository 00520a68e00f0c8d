"""The door: a Unix socket, JSON-RPC, who may do what. No policy here and no driving of the engine's insides."""
