//! Certificates of a server and of the authority behind it.

use std::path::Path;
use std::process::Command;

/// Makes a certificate for 127.0.0.1 (`server.crt`, `server.key`) and the authority behind it (`ca.crt`) in a folder.
pub fn make_certificates(folder: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    let script = format!(
        "openssl req -x509 {key} -keyout ca.key -out ca.crt -subj /CN=authority -days 2 2>/dev/null
         openssl req {key} -keyout server.key -out server.csr -subj /CN=localhost 2>/dev/null
         printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' >extensions
         openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 \
             -extfile extensions 2>/dev/null
         chmod 644 server.key"
    );
    let made = Command::new("sh").args(["-ec", &script]).current_dir(folder).status().unwrap();
    assert!(made.success(), "openssl makes certificates");
}
