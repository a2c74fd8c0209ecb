//! The examples in the help of each command.

use clap::Command;

/// Commands with all of their names, each followed by its examples, which are indented.
const EXAMPLES: &str = include_str!("examples.txt");

/// Adds the examples to the help of the commands below `command`, which is typed as `path`.
pub(super) fn with_examples(command: Command, path: &str) -> Command {
    command.mut_subcommands(|command| {
        let path = format!("{path} {}", command.get_name());
        let examples = examples(&path);
        let help = format!("Examples:\n{}", examples.join("\n"));
        let command = if examples.is_empty() { command } else { command.after_help(help) };
        with_examples(command, &path)
    })
}

fn examples(path: &str) -> Vec<&'static str> {
    EXAMPLES.lines().skip_while(|line| *line != path).skip(1).take_while(|line| line.starts_with(' ')).collect()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::Cli;

    /// How each command is typed.
    fn paths(command: &Command, path: &str, all: &mut Vec<String>) {
        for command in command.get_subcommands() {
            let path = format!("{path} {}", command.get_name());
            paths(command, &path, all);
            all.push(path);
        }
    }

    #[test]
    fn every_command_has_examples_which_it_accepts() {
        let mut commands = Vec::new();
        paths(&Cli::command(), "ddpm-dist", &mut commands);
        assert!(commands.len() > 30, "{commands:?}");
        for command in &commands {
            let examples = examples(command);
            assert!(!examples.is_empty(), "{command} has none");
            for example in examples {
                assert!(example.len() <= 80, "wider than a terminal: {example}");
                let typed =
                    example.trim_start().trim_start_matches("launch/local.sh 2 ").trim_start_matches("ddpm-dist ");
                let name = command.trim_start_matches("ddpm-dist ");
                assert!(typed.starts_with(name), "an example of another command than {name}: {example}");
                let words = ["ddpm-dist"].into_iter().chain(typed.split_whitespace());
                // As the shell would.
                let words = words.take_while(|word| *word != ">").map(|word| word.replace('~', "/home/me"));
                if let Err(error) = Cli::try_parse_from(words) {
                    panic!("{example}: {error}");
                }
            }
        }
        let titles: Vec<&str> = EXAMPLES.lines().filter(|line| !line.starts_with(' ') && !line.is_empty()).collect();
        let unknown = titles.iter().find(|title| !commands.iter().any(|command| command == *title));
        assert_eq!(unknown, None, "there is no such command");
    }
}
