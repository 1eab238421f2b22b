//! Journal and embedded store: the only writer.
