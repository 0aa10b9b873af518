//! Placeholder until the shards that hide something can be written.
