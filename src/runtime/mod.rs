//! Clock, supervisor, placement, shutdown.
