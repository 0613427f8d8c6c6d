//! Models of every lock-free protocol of windlass.
