"""The SQL, each statement a constant beside its one function.  Emits nothing, knows no sockets."""
