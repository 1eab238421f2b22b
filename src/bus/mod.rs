//! Ten typed topics, immutable envelopes, bounded delivery in which nobody waits for a subscriber.
