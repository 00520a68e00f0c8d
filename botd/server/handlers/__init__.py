"""One module per noun; `botd.server.table` joins them."""
