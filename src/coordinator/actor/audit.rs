//! The whole journal every seven days (durability §7): a start reads it from the newest checkpoint on, so a byte that
//! changed before it would be met by nobody. The check has a thread of its own; what it finds halts.

use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};

use super::{Coordinator, states};
use crate::{
    model::{Clock, CoordinatorState, Ts, time::DAY_MS},
    store::{Audit, VERIFIED_AT},
};

/// The age of the last check is looked at this often, real time.
const LOOK: Duration = Duration::from_secs(3_600);
/// Program time between two checks.
const EVERY_MS: i64 = 7 * DAY_MS;

/// Whether a check is due. A time in the future is no check: the clock was wrong then or is now.
fn is_due(verified_at: Option<Ts>, now: Ts) -> bool {
    verified_at.is_none_or(|at| at > now || now.since_ms(at) >= EVERY_MS)
}

impl Coordinator {
    /// First look, and a timer for the others; nothing where nothing is kept on disk.
    pub(super) fn begin_auditing(&mut self, ctx: &mut Context<Self>) {
        if self.time.outside.audit.is_some() {
            self.audit_if_due(ctx);
            ctx.run_interval(LOOK, Self::audit_if_due);
        }
    }

    fn audit_if_due(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        if self.time.auditing || self.draining || !is_due(self.time.outside.verified_at, now) {
            return;
        }
        let Some(audit) = self.time.outside.audit.clone() else { return };
        self.time.auditing = true;
        ctx.spawn(audit().into_actor(self).map(move |answer, actor, ctx| {
            actor.time.auditing = false;
            match answer {
                Ok(audit) => actor.audited(now, audit, ctx),
                Err(_) => actor.note(now, "journal_unverified", [("why", "the check did not end".to_owned())]),
            }
        }));
    }

    fn audited(&mut self, at: Ts, audit: Audit, ctx: &mut Context<Self>) {
        // In this process it is not asked again before its time; only a sound journal is remembered beyond it.
        self.time.outside.verified_at = Some(at);
        if !audit.checkpoints.is_empty() {
            self.note(at, "checkpoint_damaged", [("what", audit.checkpoints.join("; "))]);
        }
        if audit.journal.is_empty() {
            tracing::info!("the whole journal is sound: {} records", audit.records);
            self.put_meta(VERIFIED_AT, at.0);
            return;
        }
        let reason = format!("journal_damaged: {}", audit.journal.join("; "));
        tracing::error!("HALTED ({reason})");
        let make = move |actor: &mut Coordinator| {
            let now = actor.clock.now();
            let state = actor.view.read();
            let held = state.coordinator.state == CoordinatorState::Halted
                && state.coordinator.halt.as_ref().is_some_and(|halt| halt.reason == reason);
            if held { Vec::new() } else { vec![states::halt(&state.coordinator, &reason, "store", now)] }
        };
        self.change_state("journal_audit".to_owned(), make, ctx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_due_after_seven_days_without_one() {
        let now = Ts(100 * DAY_MS);
        assert!(is_due(None, now));
        assert!(is_due(Some(now.plus_ms(-EVERY_MS)), now));
        assert!(!is_due(Some(now.plus_ms(1 - EVERY_MS)), now));
        assert!(!is_due(Some(now), now));
        assert!(is_due(Some(now.plus_ms(1)), now));
    }
}
