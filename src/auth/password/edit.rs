//! Changes of a password file, line by line: what is not the line of the user in question stays as it is, also
//! comments and lines that are not understood.

use std::fmt;

use super::file;

/// The text of a password file that is being changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text(String);

/// Why a file is not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EditError {
    /// The user is there already, on this line.
    Exists(usize),
    /// There is no such user.
    Unknown,
    /// The user is on both lines: which one is meant?
    Ambiguous(usize, usize),
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EditError::Exists(line) => {
                write!(f, "the user is on line {line} already; `change` sets a password")
            }
            EditError::Unknown => f.write_str("there is no such user"),
            EditError::Ambiguous(one, other) => {
                write!(f, "the user is on the lines {one} and {other}; remove one")
            }
        }
    }
}

/// What takes the place of a line.
#[derive(Clone, Copy)]
enum Instead<'a> {
    Line(&'a str),
    Nothing,
}

impl Text {
    pub(crate) fn new(text: String) -> Text {
        Text(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The lines that are neither blank nor a comment, with their numbers and what is before the first colon.
    pub(crate) fn users(&self) -> impl Iterator<Item = (usize, &str, &str)> {
        let lines =
            self.0.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.trim().is_empty());
        lines.map(|(index, line)| (index + 1, line.split(':').next().unwrap_or_default(), line))
    }

    /// Adds a line for a user that is not there yet.
    pub(crate) fn add(&mut self, name: &str, line: &str) -> Result<(), EditError> {
        match self.find(name) {
            Ok(number) => return Err(EditError::Exists(number)),
            Err(EditError::Unknown) => {}
            Err(error) => return Err(error),
        }
        self.append(line);
        Ok(())
    }

    /// Gives a user another line, in the same place.
    pub(crate) fn change(&mut self, name: &str, line: &str) -> Result<(), EditError> {
        let number = self.find(name)?;
        self.replace(number, Instead::Line(line));
        Ok(())
    }

    /// Takes the line of a user away.
    pub(crate) fn delete(&mut self, name: &str) -> Result<(), EditError> {
        let number = self.find(name)?;
        self.replace(number, Instead::Nothing);
        Ok(())
    }

    /// Adds the secret from which salts are made, unless there is one.
    pub(crate) fn add_salt_secret(&mut self, secret: &[u8; 32]) {
        if !self.0.lines().any(file::is_salt_secret) {
            self.0.insert_str(0, &format!("{}\n", file::salt_secret_line(secret)));
        }
    }

    fn append(&mut self, line: &str) {
        if !self.0.is_empty() && !self.0.ends_with('\n') {
            self.0.push('\n');
        }
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// The number of the line of a user.
    fn find(&self, name: &str) -> Result<usize, EditError> {
        let mut numbers = self.users().filter(|(_, found, _)| *found == name).map(|(number, ..)| number);
        match (numbers.next(), numbers.next()) {
            (None, _) => Err(EditError::Unknown),
            (Some(number), None) => Ok(number),
            (Some(one), Some(other)) => Err(EditError::Ambiguous(one, other)),
        }
    }

    fn replace(&mut self, number: usize, instead: Instead<'_>) {
        let mut changed = String::with_capacity(self.0.len());
        for (index, line) in self.0.split_inclusive('\n').enumerate() {
            match instead {
                _ if index + 1 != number => changed.push_str(line),
                Instead::Line(new) => {
                    changed.push_str(new);
                    changed.push('\n');
                }
                Instead::Nothing => {}
            }
        }
        self.0 = changed;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_understood_stays() {
        let mut text = Text::new("# users\n\nanna:$1$old\r\nstrange line\nbert:x".into());
        text.add("emil", "emil:e").unwrap();
        text.change("anna", "anna:a").unwrap();
        text.delete("bert").unwrap();
        assert_eq!(text.as_str(), "# users\n\nanna:a\nstrange line\nemil:e\n");
        assert_eq!(text.add("anna", "anna:b"), Err(EditError::Exists(3)));
        assert_eq!(text.change("bert", "bert:b"), Err(EditError::Unknown));
        let mut twice = Text::new("anna:1\nanna:2\n".into());
        assert_eq!(twice.delete("anna"), Err(EditError::Ambiguous(1, 2)));
        text.add_salt_secret(&[1; 32]);
        let with_secret = text.clone();
        text.add_salt_secret(&[2; 32]);
        assert_eq!(text, with_secret);
    }

    proptest! {
        /// Adding a user and deleting it again gives the file back.
        #[test]
        fn adding_and_deleting_leave_no_trace(lines in prop::collection::vec("[a-c]{0,2}:?[x#]{0,2}", 0..6)) {
            let before: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
            let mut text = Text::new(before.clone());
            prop_assert!(text.add("new", "new:1").is_ok());
            prop_assert!(text.change("new", "new:2").is_ok());
            prop_assert!(text.delete("new").is_ok());
            prop_assert_eq!(text.as_str(), before);
        }
    }
}
