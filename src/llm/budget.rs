//! The budget of model calls (resilience §3): what a call may cost at worst, and whether the day, the provider and the
//! decision can pay it. Fails closed. Pure; the ledger is a part of the state.

use super::{
    question::{AnswerFormat, Payer, Prompt},
    rations::Share,
    wire::{Usage, token_limit},
};
use crate::{
    model::{
        Decimal, Money,
        spending::{ModelSpending, TOLD_WARNING},
    },
    settings::{BudgetSettings, ModelSettings},
};

/// Tokens around the text of a request: roles, marks of beginning and end, and what providers put before a schema. The
/// count of bytes leaves room for more of it than this.
const FRAME_TOKENS: u32 = 256;

/// Price of so many tokens, USD; exact.
pub fn price(model: &ModelSettings, usage: Usage) -> Money {
    let input = Decimal::from(usage.input) * model.input_usd_per_1k;
    let output = Decimal::from(usage.output) * model.output_usd_per_1k;
    ((input + output) / Decimal::ONE_THOUSAND).normalize()
}

/// What a call uses at worst: a token for every byte of the prompt and of the schema beside it, their frame, and the
/// longest answer. An upper bound of what a provider can count, unless it adds a text of its own or ignores the limit.
pub fn worst_usage(model: &ModelSettings, prompt: &Prompt, format: &AnswerFormat) -> Usage {
    usage_of(model, prompt.bytes(), format)
}

/// As [`worst_usage`], of a prompt of so many bytes.
pub fn usage_of(model: &ModelSettings, prompt_bytes: u32, format: &AnswerFormat) -> Usage {
    let schema = u32::try_from(format.schema.to_string().len()).unwrap_or(u32::MAX);
    let input = prompt_bytes.saturating_add(schema).saturating_add(FRAME_TOKENS);
    Usage { input, output: token_limit(model) }
}

/// What is held for a call of `provider` that costs `worst` by this module's count: a provider that billed more than was
/// held is expected to do so again for the rest of the day.
pub fn held(ledger: &ModelSpending, provider: &str, worst: Money) -> Money {
    if worst.is_zero() {
        return worst;
    }
    worst + ledger.over.get(provider).copied().unwrap_or_default()
}

/// What opinions may spend of a day, USD.
pub fn of_opinions(budget: &BudgetSettings) -> Money {
    (budget.daily_usd * (Decimal::ONE - budget.decision_reserve_ratio)).normalize()
}

/// Whether a call may be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It costs nothing; nothing is booked.
    Free,
    /// Reserve this much.
    Reserve {
        /// USD.
        amount: Money,
        /// The day's spending passes `warn_usd` with it, for the first time today.
        warned: bool,
    },
    /// It may not.
    Refuse(Exhausted),
}

/// A limit that a call would pass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exhausted {
    /// `day`, `opinions`, `decision`, `provider:NAME`, or the name of a task that leaves the rest to better work.
    pub limit: String,
    /// USD spent of it, reservations included.
    pub spent: Money,
    /// The limit, USD.
    pub of: Money,
    /// The event of this limit is not written yet today. A decision's own limit has none.
    pub tell: bool,
}

/// Judges a call of `provider` that costs `amount` at worst. `ledger` stands on the day of the call; an opinion leaves
/// `share` to work that is worth more.
pub fn judge(
    ledger: &ModelSpending,
    budget: &BudgetSettings,
    provider: (&str, Option<Decimal>),
    payer: &Payer,
    share: &Share,
    amount: Money,
) -> Verdict {
    if amount.is_zero() {
        return Verdict::Free;
    }
    let total = ledger.total();
    let mut limits = vec![("day".to_owned(), total, budget.daily_usd)];
    if let (name, Some(limit)) = provider {
        let spent = ledger.by_provider.get(name).copied().unwrap_or_default();
        limits.push((format!("provider:{name}"), spent, limit));
    }
    match payer {
        Payer::Opinion => {
            let limit = of_opinions(budget);
            limits.push(("opinions".to_owned(), ledger.opinions, limit));
            let left = |limit: Decimal, kept: Money| (limit - kept).max(Money::ZERO).normalize();
            let name = || share.task.name().to_owned();
            limits.push((name(), ledger.opinions, left(limit, share.opinions)));
            limits.push((name(), total, left(budget.daily_usd, share.opinions + share.decisions)));
        }
        Payer::Decision(id) => {
            let spent = ledger.by_decision.get(id).map(|(_, spent)| *spent).unwrap_or_default();
            limits.push(("decision".to_owned(), spent, budget.per_decision_usd));
        }
    }
    if let Some((limit, spent, of)) = limits.into_iter().find(|(_, spent, of)| *spent + amount > *of) {
        let tell = limit != "decision" && !ledger.told.contains(&limit);
        return Verdict::Refuse(Exhausted { limit, spent, of, tell });
    }
    let warned = total + amount > budget.warn_usd && !ledger.told.contains(TOLD_WARNING);
    Verdict::Reserve { amount, warned }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        llm::rations::WorstCases,
        model::{DecisionId, Event, TaskName},
        settings::Settings,
    };

    fn usd(cents: i64) -> Money {
        Money::new(cents, 2)
    }

    /// A ledger through the events, as the store would fold it.
    fn ledger(spent: &[(&str, Option<DecisionId>, i64)]) -> ModelSpending {
        let mut state = crate::model::State::default();
        for (call, (provider, decision, cents)) in (1u64..).zip(spent) {
            let event = Event::BudgetReserved {
                call,
                day: 3,
                provider: (*provider).to_owned(),
                model: "m".to_owned(),
                decision: *decision,
                amount: usd(*cents),
                warned: false,
            };
            state.spend(&event);
        }
        state.models
    }

    fn verdict(spent: &[(&str, Option<DecisionId>, i64)], limit: Option<i64>, payer: &Payer, cents: i64) -> Verdict {
        let budget = Settings::defaults().budget;
        let share = WorstCases::default().share(TaskName::RegimeDetection, budget.per_decision_usd);
        judge(&ledger(spent), &budget, ("p", limit.map(usd)), payer, &share, usd(cents))
    }

    fn refused(verdict: Verdict) -> String {
        match verdict {
            Verdict::Refuse(exhausted) => exhausted.limit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn prices_are_exact() {
        let model = ModelSettings {
            input_usd_per_1k: "0.00015".parse().unwrap(),
            output_usd_per_1k: "0.0006".parse().unwrap(),
            max_output_tokens: 500,
            temperature: None,
            answer_form: None,
        };
        assert_eq!(price(&model, Usage { input: 1234, output: 77 }).to_string(), "0.0002313");
        let prompt = Prompt { template: "t".into(), system: "x".repeat(350), user: String::new() };
        let format = AnswerFormat { name: "a".into(), schema: serde_json::json!({}) };
        assert_eq!(worst_usage(&model, &prompt, &format), Usage { input: 350 + 2 + FRAME_TOKENS, output: 500 });
    }

    #[test]
    fn the_day_the_provider_and_the_decision_fail_closed_to_the_cent() {
        let (a, b) = (DecisionId::default(), DecisionId(crate::model::RunId { epoch: 1, seq: 1 }));
        let decision = Payer::Decision(a);
        assert_eq!(verdict(&[], None, &decision, 50), Verdict::Reserve { amount: usd(50), warned: false });
        assert_eq!(refused(verdict(&[], None, &decision, 51)), "decision");
        assert_eq!(refused(verdict(&[("p", Some(a), 30)], None, &decision, 21)), "decision");
        assert!(matches!(verdict(&[("p", Some(b), 30)], None, &decision, 21), Verdict::Reserve { .. }));
        assert_eq!(refused(verdict(&[("q", Some(b), 480)], None, &decision, 21)), "day");
        assert_eq!(refused(verdict(&[("p", Some(b), 80)], Some(100), &decision, 21)), "provider:p");
        assert!(matches!(verdict(&[("q", Some(b), 80)], Some(100), &decision, 21), Verdict::Reserve { .. }));
    }

    #[test]
    fn a131_a_cent_less_than_the_worst_case_is_refused() {
        let other = Some(DecisionId(crate::model::RunId { epoch: 1, seq: 1 }));
        let decision = Payer::Decision(DecisionId::default());
        assert_eq!(refused(verdict(&[("q", other, 499)], None, &decision, 2)), "day");
        assert!(matches!(verdict(&[("q", other, 499)], None, &decision, 1), Verdict::Reserve { .. }));
    }

    #[test]
    fn opinions_leave_decisions_their_part() {
        let decision = Payer::Decision(DecisionId::default());
        assert_eq!(refused(verdict(&[("p", None, 290)], None, &Payer::Opinion, 11)), "opinions");
        assert!(matches!(verdict(&[("p", None, 290)], None, &Payer::Opinion, 10), Verdict::Reserve { .. }));
        assert!(matches!(verdict(&[("p", None, 300)], None, &decision, 50), Verdict::Reserve { .. }));
    }

    #[test]
    fn the_warning_is_told_once_and_what_is_free_is_not_booked() {
        let decision = Payer::Decision(DecisionId::default());
        let other = Some(DecisionId(crate::model::RunId { epoch: 1, seq: 1 }));
        assert_eq!(
            verdict(&[("p", other, 380)], None, &decision, 30),
            Verdict::Reserve { amount: usd(30), warned: true }
        );
        assert_eq!(verdict(&[("p", other, 500)], None, &decision, 0), Verdict::Free);
    }
}
