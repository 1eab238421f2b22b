//! Schedule, freshness, admission, consensus, conflicts, decisions: pure functions and the actor that applies them.
