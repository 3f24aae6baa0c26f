//! PostgreSQL's password file: `host:port:database:user:password`, one rule a line, first match wins.
//!
//! Format: PostgreSQL documentation, "The Password File". `*` matches anything in the first four fields; `\` takes
//! the next character literally; lines that begin with `#` are comments.

use backstay_backup_core::secret::Secret;

/// Whom a password is wanted for.
#[derive(Clone, Copy, Debug)]
pub struct PassfileQuery<'a> {
    /// Host name; `localhost` also stands for a Unix socket.
    pub host: &'a str,
    /// Port.
    pub port: u16,
    /// Database.
    pub database: &'a str,
    /// Role.
    pub user: &'a str,
}

/// The password of the first rule that fits.
#[must_use]
pub fn find_password(content: &str, query: PassfileQuery<'_>) -> Option<Secret<String>> {
    let port = query.port.to_string();
    let wanted = [query.host, &port, query.database, query.user];
    content.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = split_fields(line);
        let fits = fields.len() == 5
            && fields.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted);
        fits.then(|| fields.into_iter().nth(4).map(Secret::new)).flatten()
    })
}

/// One line of a password file, with what needs escaping escaped.
#[must_use]
pub(crate) fn render_line(password: &Secret<String>) -> String {
    let escaped = password.expose().replace('\\', "\\\\").replace(':', "\\:");
    format!("*:*:*:*:{escaped}\n")
}

fn split_fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        let full = fields.len() == 5;
        let last = fields.last_mut().expect("there is always a field");
        match c {
            '\\' => last.extend(chars.next()),
            ':' if !full => fields.push(String::new()),
            other => last.push(other),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: PassfileQuery<'_> = PassfileQuery { host: "db", port: 5432, database: "shop", user: "bob" };

    #[test]
    fn the_first_fitting_rule_wins() {
        let content = "# comment\nother:*:*:*:no\ndb:5432:*:bob:pa\\:ss\\\\word\n*:*:*:*:late\n";
        assert_eq!(find_password(content, QUERY).unwrap().expose(), "pa:ss\\word");
        assert!(find_password("db:1:*:bob:x", QUERY).is_none());
    }

    #[test]
    fn any_password_survives_rendering() {
        for password in ["simple", "a:b", "a\\b", "\\:\\", "ü:"] {
            let line = render_line(&Secret::new(password.to_owned()));
            assert_eq!(find_password(&line, QUERY).unwrap().expose(), password);
        }
    }
}
