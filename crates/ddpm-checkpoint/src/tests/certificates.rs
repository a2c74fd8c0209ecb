//! Servers whose certificates were signed by a private authority.

use std::{fs, path::PathBuf, process::Command};

use super::{
    servers::{Moto, run_tests_on},
    *,
};

/// A private authority, and a server's certificate that it signed.
struct Authority(tempfile::TempDir);

impl Authority {
    fn new() -> Self {
        let authority = Self(tempfile::tempdir().unwrap());
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        let extension = "-addext basicConstraints=critical,CA:TRUE";
        authority.openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 9 -subj /CN=private {extension}"));
        authority.openssl(&format!("req -new {key} -keyout server.key -out server.csr -subj /CN=server"));
        fs::write(authority.file("names"), "subjectAltName=IP:127.0.0.1").unwrap();
        let signing = "-CA ca.pem -CAkey ca.key -CAcreateserial -extfile names";
        authority.openssl(&format!("x509 -req -in server.csr {signing} -days 9 -out server.pem"));
        authority
    }

    fn openssl(&self, arguments: &str) {
        let outcome = Command::new("openssl").args(arguments.split(' ')).current_dir(&self.0).output().unwrap();
        assert!(outcome.status.success(), "{arguments}: {}", String::from_utf8_lossy(&outcome.stderr));
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

#[test]
fn a_private_authority_is_trusted_if_the_environment_names_it() {
    let (ours, other) = (Authority::new(), Authority::new());
    let moto = Moto::with_certificate(&ours.file("server.pem"), &ours.file("server.key"));
    let with = |name: &str, file: PathBuf| {
        let mut env = moto.env();
        env.push((name.into(), file.to_str().unwrap().into()));
        env
    };
    let open = |env: &[(String, String)]| Store::open_in(env, "s3://bucket/run", StoreOptions::default(), |_| Ok(()));

    let store = open(&with("AWS_CA_BUNDLE", ours.file("ca.pem"))).unwrap();
    save(&store, 10, 2);
    assert_eq!(store.verify(10).unwrap().faults, [""; 0]);
    // The TLS library reads this one, in the environment of the process.
    run_tests_on("s3://bucket/suite", &with("SSL_CERT_FILE", ours.file("ca.pem")), &["races"]);

    for env in [moto.env(), with("AWS_CA_BUNDLE", other.file("ca.pem"))] {
        let text = open(&env).unwrap().list().unwrap_err().to_string();
        assert!(text.contains("no encrypted connection") && text.contains("Set AWS_CA_BUNDLE to"), "{text}");
    }
    for name in ["AWS_CA_BUNDLE", "SSL_CERT_FILE"] {
        for (file, part) in [("none.pem", "cannot be read (No such file"), ("server.key", "contains no certificate")] {
            let refused = open(&with(name, ours.file(file)));
            let text = refused.expect_err(file).to_string();
            assert!(text.contains(name) && text.contains(part) && text.contains("or unset it"), "{text}");
        }
    }
}
