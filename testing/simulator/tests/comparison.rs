//! The comparison that the packer is there for, with its bars; the traces and the noise are seeded.

use bield_packer::Policy;
use bield_simulator::compare;

#[test]
fn bield_takes_two_fifths_of_fnpacker_at_most_and_keeps_busy_models_fast() {
    for seed in 1..=5 {
        let comparison = compare(seed).unwrap();
        println!("seed {seed}\n{comparison}");
        let row = |policy| comparison.row(policy).unwrap();
        let bield = row(Policy::Bield);
        let ratio = bield.container_s / row(Policy::FnPacker).container_s;
        println!("container time, bield to fnpacker: {ratio:.2}\n");
        assert!(ratio <= 0.4, "{ratio}");
        // A container may hold several models, so that memory over time has to be less as well.
        assert!(bield.gb_s < row(Policy::FnPacker).gb_s);
        assert!(bield.gb_s < row(Policy::OnePerModel).gb_s);
        assert_eq!(bield.failed, 0);
        let busy = bield.busy.as_ref().unwrap();
        let alone = row(Policy::OnePerModel).busy.as_ref().unwrap();
        assert!(busy.p50_ms <= alone.p50_ms * 1.1, "{busy:?} {alone:?}");
        assert!(busy.p95_ms <= alone.p95_ms * 1.1, "{busy:?} {alone:?}");
    }
}

#[test]
fn a_seed_is_all_there_is() {
    assert_eq!(compare(7).unwrap(), compare(7).unwrap());
}
