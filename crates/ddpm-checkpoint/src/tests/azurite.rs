//! The conformance suite and the races on a real Azurite.

use super::{
    servers::{Azurite, SIGNATURE, run_tests_on},
    *,
};

#[test]
fn the_suite_passes_on_azurite() {
    let azurite = Azurite::start();
    let suite = ["background", "damage", "history", "leases", "races", "round_trip"];
    run_tests_on("az://bucket/suite", &azurite.env(), &suite);

    // The other kind of credentials.
    let with_signature: Vec<_> = azurite
        .env()
        .into_iter()
        .map(|(name, value)| match name.as_str() {
            "AZURE_STORAGE_ACCOUNT_KEY" => ("AZURE_STORAGE_SAS_TOKEN".into(), SIGNATURE.into()),
            _ => (name, value),
        })
        .collect();
    let open =
        |env: &[(String, String)], uri: &str| Store::open_in(env, uri, StoreOptions::default(), |_| Ok(())).unwrap();
    save(&open(&with_signature, "az://bucket/run"), 10, 1);
    assert_eq!(open(&azurite.env(), "az://bucket/run").list().unwrap(), [10]);
    let refused = open(&azurite.env(), "az://nowhere/run").list().unwrap_err().to_string();
    assert!(refused.contains("has no such bucket") && refused.contains("Create it"), "{refused}");
}
