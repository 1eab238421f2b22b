//! An entry with conflicts: what is kept while they are settled, and how it goes on afterwards. Pure.

use super::{
    decision::{Next, Progress, sized, stop_here},
    resolution,
};
use crate::{
    model::{
        Conflict, CooldownCause, DecisionEnd, DecisionId, Event, Levels, Modifications, Resolution, ResolutionAction,
        RiskCode, RiskRefusal, Sizing, TradeKey, Ts, state::RiskState,
    },
    risk::{RiskRequest, RiskRules, cooldown},
};

/// An entry that waits for its conflicts to be settled.
#[derive(Clone, PartialEq, Debug)]
pub struct Disputed {
    /// In the order of the specification's table; never empty.
    pub conflicts: Vec<Conflict>,
    /// What risk would be asked without them.
    pub request: RiskRequest,
    /// How its size came about.
    pub sizing: Sizing,
    /// The account could not be valued: risk names it, not the smallness of the size.
    pub no_account: bool,
    /// Resting entries of the symbol, replaced when it goes on.
    pub resting: Vec<TradeKey>,
    /// Rebalance legs that give way when it goes on.
    pub defer_legs: Vec<TradeKey>,
}

/// From the resolution of the conflicts to the question for risk, or an end. The bounds of `resolution` are applied by
/// whoever settled it; what changes is checked again here.
pub fn after_resolution(id: DecisionId, disputed: Disputed, settled: Resolution, rules: &RiskRules) -> Progress {
    let why = disputed.conflicts.iter().map(|conflict| conflict.kind.name()).collect::<Vec<_>>().join(", ");
    let (action, changes) = (settled.action, settled.modifications);
    let events = vec![Event::ResolutionDone { decision: id, resolution: settled }];
    let (mut request, mut sizing) = (disputed.request, disputed.sizing);
    match (action, changes) {
        (ResolutionAction::Proceed, _) => {}
        (ResolutionAction::Modify, Some(changes)) => match modified(&request, &changes, rules) {
            Ok(changed) => {
                sizing.notional = changed.notional_usd;
                request = changed;
            }
            Err(measured) => {
                let limit = "stop on the losing side and the smallest reward:risk".to_owned();
                let refusal = RiskRefusal { code: RiskCode::InvalidProposal, measured, limit };
                return stop_here(id, events, DecisionEnd::Refused(refusal));
            }
        },
        (ResolutionAction::Modify, None) | (ResolutionAction::Wait, _) => {
            return stop_here(id, events, DecisionEnd::Waited(why));
        }
        (ResolutionAction::Abort, _) => return stop_here(id, events, DecisionEnd::Aborted(why)),
    }
    let mut progress = sized(id, request, sizing, disputed.no_account, rules, events);
    if !matches!(progress.next, Next::Ended(_)) {
        progress.cancel_first = disputed.resting;
        progress.defer_legs = disputed.defer_legs;
    }
    progress
}

fn modified(request: &RiskRequest, changes: &Modifications, rules: &RiskRules) -> Result<RiskRequest, String> {
    let (Some(stop), Some(target)) = (request.stop, request.target) else {
        return Err("an entry without stop and target cannot be modified".to_owned());
    };
    let Some(symbol) = rules.symbol(request.symbol) else {
        return Err(format!("{} has no rounding rules", request.symbol));
    };
    let levels = Levels { entry: request.entry, stop, target };
    let changed = resolution::modify(
        levels,
        request.side,
        request.leverage,
        request.notional_usd,
        changes,
        symbol,
        rules.settings.stop.min_reward_risk,
    )?;
    Ok(RiskRequest {
        entry: changed.levels.entry,
        leverage: changed.leverage,
        notional_usd: changed.notional,
        ..request.clone()
    })
}

/// The cooldown after the verdict on a decision that saw a volatility spike: it traded at half size, the next ones
/// wait (domain §11.5).
pub fn spike_cooldown(request: &RiskRequest, state: &RiskState, rules: &RiskRules, now: Ts) -> Option<Event> {
    request.volatility_spike.then(|| cooldown::cooldown(state, rules, CooldownCause::VolatilitySpike, now)).flatten()
}
