//! Trades: state machine, matching, fees, ledger, positions, legs. Pure, with the venue seam.
