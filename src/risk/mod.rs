//! The risk engine: rules, breakers, exposure. Pure.
