//! The format of the Azure Functions trace of 2019: invocations of each function in each minute of a day.
//!
//! ```text
//! HashOwner,HashApp,HashFunction,Trigger,1,2,…,1440
//! 9f3…,a21…,c04…,http,0,3,…,1
//! ```
//!
//! Strict: the header is as above with 1 to 1440 minutes, every line has as many fields, every count is a whole number; an
//! error names the line. The data set is Azure's (`AzurePublicDataset`, CC-BY); none of it is here.

/// Minutes of a day, the most a file has.
const MINUTES_MAX: usize = 1440;
/// Functions of a file: the published days have about 50 000.
const FUNCTIONS_MAX: usize = 200_000;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Whose it is, hashed.
    pub owner: String,
    /// Its application, hashed.
    pub app: String,
    /// Itself, hashed.
    pub function: String,
    /// `http`, `timer`, `queue`, …
    pub trigger: String,
    /// Invocations in each minute.
    pub minutes: Vec<u32>,
}

impl Function {
    /// Invocations altogether.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.minutes.iter().copied().map(u64::from).sum()
    }
}

/// Why a file was not read: the line, counted from 1, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct AzureError {
    /// The first wrong line.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

/// Reads a file.
///
/// # Errors
/// The first line that is not as the format has it.
pub fn parse_azure(text: &str) -> Result<Vec<Function>, AzureError> {
    let mut lines = text.lines().enumerate();
    let header = lines.next().map_or("", |(_, header)| header);
    let minutes = parse_header(header).map_err(|why| AzureError { line: 1, why })?;
    let mut functions = Vec::new();
    for (at, line) in lines {
        let line_number = at + 1;
        let refuse = |why: String| AzureError {
            line: line_number,
            why,
        };
        if functions.len() == FUNCTIONS_MAX {
            return Err(refuse(format!("more than {FUNCTIONS_MAX} functions")));
        }
        functions.push(parse_line(line, minutes).map_err(refuse)?);
    }
    Ok(functions)
}

fn parse_header(header: &str) -> Result<usize, String> {
    let mut fields = header.split(',');
    for expected in ["HashOwner", "HashApp", "HashFunction", "Trigger"] {
        let found = fields.next().unwrap_or_default();
        if found != expected {
            let found: String = found.chars().take(40).collect();
            return Err(format!("column {expected} expected, found {found:?}"));
        }
    }
    let mut minutes = 0;
    for found in fields {
        minutes += 1;
        if found != minutes.to_string() || minutes > MINUTES_MAX {
            let found: String = found.chars().take(40).collect();
            return Err(format!(
                "column {minutes} expected (1 to {MINUTES_MAX}), found {found:?}"
            ));
        }
    }
    if minutes == 0 {
        return Err("no minutes: columns 1, 2, … expected".to_owned());
    }
    Ok(minutes)
}

fn parse_line(line: &str, minutes: usize) -> Result<Function, String> {
    let fields: Vec<&str> = line.split(',').collect();
    let expected = minutes + 4;
    if fields.len() != expected {
        return Err(format!("{} fields instead of {expected}", fields.len()));
    }
    if fields[..4].iter().any(|field| field.contains('"')) {
        return Err("quotes are not part of the format".to_owned());
    }
    let counts = fields[4..].iter().enumerate().map(|(at, count)| {
        // `parse` would take a sign.
        let digits = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
        let count = digits.then(|| count.parse().ok()).flatten();
        count.ok_or_else(|| format!("minute {} is not a count", at + 1))
    });
    Ok(Function {
        owner: fields[0].to_owned(),
        app: fields[1].to_owned(),
        function: fields[2].to_owned(),
        trigger: fields[3].to_owned(),
        minutes: counts.collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_with_either_line_end() {
        for end in ["\n", "\r\n"] {
            let text = [
                "HashOwner,HashApp,HashFunction,Trigger,1,2",
                "o,a,f,http,3,0",
                "",
            ]
            .join(end);
            let functions = parse_azure(&text).unwrap();
            assert_eq!(functions.len(), 1);
            assert_eq!(functions[0].minutes, [3, 0]);
            assert_eq!(
                (functions[0].total(), functions[0].trigger.as_str()),
                (3, "http")
            );
        }
    }

    #[test]
    fn what_is_not_the_format_is_refused_with_its_line() {
        let header = "HashOwner,HashApp,HashFunction,Trigger,1,2\n";
        for (text, line, why) in [
            ("", 1, "column HashOwner"),
            ("HashOwner,HashApp,HashFunction,Trigger", 1, "no minutes"),
            ("HashOwner,HashApp,HashFunction,Trigger,1,3", 1, "column 2"),
            (&format!("{header}o,a,f,t,1"), 2, "5 fields instead of 6"),
            (
                &format!("{header}o,a,f,t,1,2\no,a,f,t,1,2,3"),
                3,
                "7 fields",
            ),
            (&format!("{header}o,a,f,t,1,-2"), 2, "minute 2"),
            (&format!("{header}o,a,f,t,+1,2"), 2, "minute 1"),
            (&format!("{header}o,a,f,t,1,4294967296"), 2, "minute 2"),
            (&format!("{header}o,a,f,t,1,1.5"), 2, "minute 2"),
            (&format!("{header}\"o\",a,f,t,1,2"), 2, "quotes"),
            (&format!("{header}\n"), 2, "1 fields"),
        ] {
            let refused = parse_azure(text).unwrap_err();
            assert_eq!(refused.line, line, "{text}");
            assert!(refused.why.contains(why), "{refused}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(HashOwner,HashApp,HashFunction,Trigger,1\n)?[a-z0-9,\n\"-]{0,200}") {
            let _ = parse_azure(&text);
        }
    }
}
