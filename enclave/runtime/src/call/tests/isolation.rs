//! What `wiped` and `dedicated` change for a request, seen from outside; what they leave in memory is in `traces`.

use bield_package::tensor::TensorSpec;

use super::*;

fn isolated(isolation: Isolation) -> (Stage, Runtime) {
    let (stage, runtime) = stage();
    let grant = stage.cast.grant(stage.package, isolation);
    stage.service.mind().grants = Some(vec![grant]);
    (stage, runtime)
}

/// The bytes of the opened body, and what the host was told.
fn body(runtime: &Runtime, call: (Vec<u8>, ResponseOpener)) -> (usize, Feedback) {
    let (sealed, opener) = call;
    match runtime.answer(&sealed, &|| false) {
        Reply::Sealed(feedback, answer) => (opener.open(&answer).unwrap().len(), feedback),
        other => panic!("not sealed: {other:?}"),
    }
}

#[test]
fn a_wiped_request_finds_keys_and_model_and_runs_on_threads_of_its_own() {
    let (stage, runtime) = isolated(Isolation::Wiped);
    let call = |id| stage.cast.request(stage.package, id);
    assert_eq!(start_of(&runtime, call(1)), StartKind::Cold);
    assert_eq!(start_of(&runtime, call(2)), StartKind::WarmRuntime);
    assert_eq!(stage.service.mind().fetches, 1);
}

#[test]
fn the_strictest_grant_decides() {
    let (stage, runtime) = stage();
    let grants = [Isolation::Shared, Isolation::Dedicated, Isolation::Wiped]
        .map(|isolation| stage.cast.grant(stage.package, isolation));
    stage.service.mind().grants = Some(grants.to_vec());
    start_of(&runtime, stage.cast.request(stage.package, 1));
    assert!(runtime.tenancy.is_claimed());
}

/// An engine whose memory cannot be wiped from here.
struct Forgetless(Rten);

struct ForgetlessModel(Box<dyn Model>);

impl Engine for Forgetless {
    fn name(&self) -> &'static str {
        "forgetless"
    }

    fn load(&self, bytes: Vec<u8>, format: ModelFormat) -> Result<Box<dyn Model>, EngineError> {
        Ok(Box::new(ForgetlessModel(self.0.load(bytes, format)?)))
    }
}

impl Model for ForgetlessModel {
    fn inputs(&self) -> &[TensorSpec] {
        self.0.inputs()
    }

    fn outputs(&self) -> &[TensorSpec] {
        self.0.outputs()
    }

    fn engine(&self) -> &'static str {
        "forgetless"
    }

    fn run_timed(
        &self,
        inputs: &[Tensor],
        outputs: &[&str],
    ) -> Result<(Vec<Tensor>, Option<Duration>), EngineError> {
        self.0.run_timed(inputs, outputs)
    }
}

#[test]
fn isolation_that_the_engine_cannot_give_is_refused_and_never_served_as_less() {
    for isolation in [Isolation::Wiped, Isolation::Dedicated] {
        let stage = Stage::new(Shelf::stocked());
        let runtime = stage.runtime(Forgetless(Rten::new(1)), 64 * MIB);
        let grants = [isolation, Isolation::Shared]
            .map(|isolation| stage.cast.grant(stage.package, isolation));
        stage.service.mind().grants = Some(grants.to_vec());
        let refusal = refused(&runtime, stage.cast.request(stage.package, 1));
        assert_eq!(refusal.code, "isolation-unsupported");
        assert!(
            refusal.message.contains(&isolation.to_string()),
            "{refusal}"
        );
    }
}

#[test]
fn a_dedicated_request_finds_nothing_and_leaves_nothing() {
    let (stage, runtime) = isolated(Isolation::Dedicated);
    for id in 1..4 {
        let call = stage.cast.request(stage.package, id);
        assert_eq!(start_of(&runtime, call), StartKind::Cold);
        assert_eq!(stage.service.mind().fetches, u32::from(id));
        assert_eq!(runtime.models.counts().used_bytes, 0);
        assert!(runtime.leases.cached(stage.package).is_none());
    }
}

#[test]
fn once_a_dedicated_user_was_served_nobody_else_is_and_may_retry_elsewhere() {
    let (stage, runtime) = stage();
    let other = SigningKey::generate(&mut Seeded::new(99));
    let user = bield_grant::UserSelector::Principal(other.principal());
    let grants = vec![
        stage.cast.grant(stage.package, Isolation::Dedicated),
        stage.cast.granted(stage.package, |grant| {
            grant.id = [2; 16];
            grant.user = user;
        }),
    ];
    stage.service.mind().grants = Some(grants);
    let tiny = inference::Request {
        inputs: crate::testing::inputs(),
        outputs: Vec::new(),
    };
    let tiny = tiny.encode();
    let by_other = |id| stage.cast.seal(&other, stage.package, id, &tiny);
    start_of(&runtime, by_other(1));
    start_of(&runtime, stage.cast.request(stage.package, 2));
    // Twice the same bytes: they were not used up, another runtime takes them.
    for _ in 0..2 {
        let refusal = refused(&runtime, by_other(3));
        assert_eq!(refusal.code, "instance-taken");
        assert!(matches!(refusal.retry, Retry::After(_)));
    }
    start_of(&runtime, stage.cast.request(stage.package, 4));
}

#[test]
fn answers_and_refusals_of_a_dedicated_user_have_one_size() {
    let (stage, runtime) = isolated(Isolation::Dedicated);
    let (answer, _) = body(&runtime, stage.cast.request(stage.package, 1));
    let nonsense = stage
        .cast
        .seal(&stage.cast.user, stage.package, 2, b"no cbor");
    let (refusal, _) = body(&runtime, nonsense);
    let stranger = SigningKey::generate(&mut Seeded::new(98));
    let strangers = stage.cast.seal(&stranger, stage.package, 3, b"");
    let (turned_away, _) = body(&runtime, strangers);
    assert_eq!((answer, refusal), (refusal, turned_away));
    // The control: elsewhere they differ.
    let (stage, runtime) = isolated(Isolation::Wiped);
    let (answer, _) = body(&runtime, stage.cast.request(stage.package, 1));
    let (refusal, _) = body(&runtime, stage.cast.request(stage.package, 1));
    assert_ne!(answer, refusal);
}

#[test]
fn a_grant_that_ended_is_found_out_although_a_lease_with_it_is_at_hand() {
    let (stage, runtime) = isolated(Isolation::Dedicated);
    // The lease at hand was fetched by somebody who was refused.
    let stranger = SigningKey::generate(&mut Seeded::new(99));
    let call = stage.cast.seal(&stranger, stage.package, 1, b"");
    assert_eq!(refused(&runtime, call).code, "user-not-granted");
    assert!(runtime.leases.cached(stage.package).is_some());
    stage.service.mind().grants = Some(Vec::new());
    let refusal = refused(&runtime, stage.cast.request(stage.package, 2));
    assert_eq!(refusal.code, "grant-revoked");
}
