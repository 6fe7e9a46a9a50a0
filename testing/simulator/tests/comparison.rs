//! The comparison that the packer is there for, with its bars; the traces and the noise are seeded.

use bield_packer::Policy;
use bield_simulator::{Case, compare};

#[test]
fn bield_takes_two_fifths_of_fnpacker_at_most_and_keeps_busy_models_fast() {
    let cases = [Case::APART, Case::SHARED];
    for (case, seed) in cases
        .iter()
        .flat_map(|case| (1..=5).map(move |n| (case, n)))
    {
        let comparison = compare(case, seed).unwrap();
        println!("{}, seed {seed}\n{comparison}", case.name);
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
fn a_packer_that_knows_of_the_cores_takes_less_and_is_as_fast() {
    for seed in 1..=5 {
        let [told, untold] = [Case::SHARED, Case::UNTOLD].map(|case| compare(&case, seed).unwrap());
        println!("seed {seed}\n{told}\n{untold}");
        let [told, untold] = [&told, &untold].map(|all| all.row(Policy::Bield).unwrap());
        assert!(told.container_s < 0.8 * untold.container_s);
        let busy = |row: &bield_simulator::Row| row.busy.as_ref().unwrap().p50_ms;
        assert!(busy(told) <= 1.02 * busy(untold));
    }
}

#[test]
fn a_seed_is_all_there_is() {
    for case in [Case::APART, Case::SHARED] {
        assert_eq!(compare(&case, 7).unwrap(), compare(&case, 7).unwrap());
    }
}
