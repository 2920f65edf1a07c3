//! `likemind quickstart`, as a newcomer runs it: without any configuration, interrupted, killed, and repeated.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::databases;
use crate::support::databases::RATINGS;
use crate::support::postgres::{TestDatabase, folder};
use crate::support::program::{Program, bare_command, output, run, succeed};
use crate::support::waiting::eventually_blocking;

/// Returns the command with a private PostgreSQL in `data_dir`.
fn quickstart(data_dir: &Path, args: &[&str]) -> Command {
    let mut command = bare_command(env!("CARGO_BIN_EXE_likemind"), &["quickstart", "--listen=127.0.0.1:0"]);
    command.arg("--data-dir").arg(data_dir).args(args);
    // With this lease a killed trainer does not keep the next one out for long.
    command.arg("--set-config=trainer.lease_ms=5000");
    command
}

/// Returns the processes whose working folder is in `folder`, as for all processes of a PostgreSQL.
fn processes_in(folder: &Path) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let at_work = processes.filter(|process| {
        fs::read_link(process.path().join("cwd")).is_ok_and(|working_folder| working_folder.starts_with(folder))
    });
    at_work
        .map(|process| process.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Waits for the end of all processes, because a killed owner cannot wait for its PostgreSQL.
fn wait_until_ended(data_dir: &Path) {
    eventually_blocking("all processes have ended", || processes_in(data_dir), Vec::is_empty);
}

fn assert_ended(data_dir: &Path) {
    assert_eq!(processes_in(data_dir), Vec::<String>::new());
    assert!(!data_dir.join("postgres/postmaster.pid").exists());
}

/// Returns the lines below the one that begins with `title`, up to an empty line.
fn section<'a>(printed: &'a str, title: &str) -> Vec<&'a str> {
    let mut lines = printed.lines().skip_while(|line| !line.starts_with(title));
    assert!(lines.next().is_some(), "no {title:?} in\n{printed}");
    lines.take_while(|line| !line.is_empty()).collect()
}

/// Returns the scores of a ranked list, whose ranks must be 1, 2, …; other lines may stand between its lines.
fn ranked(lines: &[&str]) -> Vec<f64> {
    let ranked = lines.iter().filter_map(|line| line.trim().split_once(". "));
    let (ranks, scores): (Vec<String>, Vec<f64>) = ranked
        .filter(|(rank, _)| rank.bytes().all(|byte| byte.is_ascii_digit()))
        .map(|(rank, item)| {
            (
                rank.to_owned(),
                item.rsplit(' ').next().unwrap().parse::<f64>().unwrap(),
            )
        })
        .unzip();
    let expected: Vec<String> = (1..=ranks.len()).map(|rank| rank.to_string()).collect();
    assert_eq!(ranks, expected, "{lines:?}");
    assert!(
        scores.is_sorted_by(|a, b| a >= b) && scores.last() > Some(&0.0),
        "{scores:?}"
    );
    scores
}

fn assert_answers(printed: &str) {
    let prediction = section(printed, "What would customer 17841 rate ");
    let (value, neighbors) = prediction[0].trim().split_once(" from ").unwrap();
    assert!((1.0..=5.0).contains(&value.parse::<f64>().unwrap()), "{prediction:?}");
    assert!(
        neighbors.ends_with(" neighbors:") && neighbors != "0 neighbors:",
        "{prediction:?}"
    );

    let recommended = section(printed, "What should customer 17841 be shown ");
    assert_eq!(ranked(&recommended).len(), 10, "{recommended:?}");
    let reasons = recommended.iter().filter(|line| line.contains("bought")).count();
    assert!(reasons >= 10, "{recommended:?}");

    let similar = section(printed, "Which items are bought by the same customers as ");
    assert_eq!(ranked(&similar).len(), 5, "{similar:?}");
    assert!(ranked(&similar)[0] <= 1.0, "{similar:?}");
}

/// Checks that a quickstart that serves prints how to ask it.
fn assert_commands(printed: &str) {
    let commands = section(printed, "Try it from another terminal");
    for rpc in [
        "Recommend",
        "PredictRatings",
        "ListSimilarItems",
        "UpsertRatings",
        "GetServingStatus",
    ] {
        assert!(
            commands.iter().any(|command| command.contains(rpc)),
            "no {rpc} in {commands:?}"
        );
    }
}

/// Asserts the forecast and what to reorder by made-up stock.
fn assert_demand(printed: &str) {
    let forecast = section(printed, "How much of ");
    assert!(forecast[0].contains(" units are expected: at most "), "{forecast:?}");
    let listed = section(printed, "What should be reordered first? The stock levels are made up");
    assert_eq!(listed.len(), 5, "{listed:?}");
    // The first has nothing on hand.
    assert!(listed[0].contains("; 0 on hand, "), "{listed:?}");
}

/// Asserts the answers about coupons, which follow those about purchases. `redeemed`: the number of households that have
/// redeemed the coupon.
fn assert_coupon_answers(printed: &str, redeemed: usize) {
    let (purchases, coupons) = (printed.find("What should customer"), printed.find("Who should get"));
    assert!(purchases < coupons, "{printed}");
    let campaign = section(printed, "Coupons for the households: ");
    assert!(campaign.iter().any(|line| line.contains("10 % ")), "{campaign:?}");

    let targets = section(printed, "Who should get 20 % off yogurt");
    let counts: Vec<usize> = targets[0]
        .split_whitespace()
        .filter_map(|word| word.replace(',', "").parse().ok())
        .collect();
    let [eligible, customers, ..] = counts[..] else {
        panic!("{targets:?}")
    };
    // 710 households have bought milk and no yogurt; about a tenth of them is held out.
    assert!(customers > 6_000 && (550..=710).contains(&eligible), "{targets:?}");
    assert!(
        targets[0].contains(" by the rules of the coupon") && targets[0].contains(" held out"),
        "{targets:?}"
    );
    let had_it = format!("{redeemed} who have used it");
    assert_eq!(targets[0].contains(&had_it), redeemed > 0, "{targets:?}");
    assert_eq!(ranked(&targets).len(), 10, "{targets:?}");
    let households = targets.iter().filter(|line| line.contains(". household-")).count();
    assert_eq!(households, 10, "{targets:?}");
    assert!(
        !targets.iter().any(|line| line.contains("nothing is known")),
        "{targets:?}"
    );

    let listed = section(printed, "Which coupons can household-");
    assert_eq!(listed.len(), 2, "{listed:?}");
    for discount in ["0.72 USD off this cart", "1.00 USD off this cart"] {
        assert!(
            listed.iter().any(|line| line.ends_with(discount)),
            "no {discount} in {listed:?}"
        );
    }

    let refusal = section(printed, "May household-2400 use cj-8:10000085364");
    let reasons: Vec<&str> = refusal.iter().map(|line| line.split("  ").nth(1).unwrap()).collect();
    assert_eq!(
        reasons,
        ["campaign ended", "not assigned", "no qualifying item"],
        "{refusal:?}"
    );
}

/// Runs a line as a reader's shell does, from another folder.
fn paste(line: &str) -> String {
    let answered = output(&mut bare_command("sh", &["-c", line]));
    assert!(answered.status.success(), "{line}: {answered:?}");
    String::from_utf8(answered.stdout).unwrap()
}

/// Interrupts one quickstart and kills another, both while the sample is imported in part.
fn interrupt_and_kill(data_dir: &Path) {
    let mut first = Program::start(&mut quickstart(data_dir, &[]));
    first.wait_for_output("Importing items and purchases");
    assert!(!processes_in(data_dir).is_empty());
    first.signal(libc::SIGINT);
    let (exit, log) = first.wait();
    assert_eq!(exit.code(), Some(130), "{log}");
    assert_ended(data_dir);
    let mut second = Program::start(&mut quickstart(data_dir, &[]));
    second.wait_for_output("Importing items and purchases");
    second.kill();
    wait_until_ended(data_dir);
}

/// Runs a quickstart to its end, which imports and trains.
fn import_and_train(data_dir: &Path) {
    let whole = output(&mut quickstart(data_dir, &["--exit"]));
    let printed = String::from_utf8(whole.stdout).unwrap();
    assert_eq!(
        whole.status.code(),
        Some(0),
        "{printed}\n{}",
        String::from_utf8_lossy(&whole.stderr)
    );
    assert!(
        printed.contains("Training:") && !printed.contains("Reusing"),
        "{printed}"
    );
    assert!(!printed.contains("until Ctrl-C"), "{printed}");
    assert_only_says_how_to_start_again(&printed, data_dir);
    assert_answers(&printed);
    assert_coupon_answers(&printed, 0);
    assert_demand(&printed);
    // data/README.md states the same number.
    assert!(printed.contains("rejected 239: ZERO_QUANTITY"), "{printed}");
    assert_eq!(printed.matches("  rejected ").count(), 1, "{printed}");
    assert_ended(data_dir);
}

/// The server and its key are gone, so no command may be printed that needs them.
fn assert_only_says_how_to_start_again(printed: &str, data_dir: &Path) {
    assert!(
        !printed.contains("LIKEMIND_API_KEY") && !printed.contains(" call "),
        "{printed}"
    );
    let again = printed.trim_end().lines().last().unwrap();
    let (program, data_dir) = (env!("CARGO_BIN_EXE_likemind"), data_dir.to_str().unwrap());
    assert!(
        again.contains(program) && again.contains("quickstart") && again.contains(data_dir),
        "{again}"
    );
    assert!(!again.contains("--exit"), "{again}");
}

/// A quickstart that serves, and what it printed.
struct Serving {
    program: Program,
    address: String,
    printed: String,
    /// The command that sets the key for the commands that are printed.
    export: String,
}

/// Kills a quickstart that serves, and starts another one, which reuses the data and the snapshot.
fn kill_and_serve_again(data_dir: &Path) -> Serving {
    let mut killed = Program::start(&mut quickstart(data_dir, &[]));
    killed.wait_for_output("until Ctrl-C");
    assert!(!processes_in(data_dir).is_empty());
    killed.kill();

    let mut program = Program::start(&mut quickstart(data_dir, &[]));
    let line = program.wait_for_output("Serving on http://127.0.0.1:");
    let address = line.split_whitespace().nth(2).unwrap().to_owned();
    let printed = program.printed();
    assert!(
        printed.contains("Reusing the existing data and snapshot 1."),
        "{printed}"
    );
    assert!(
        !printed.contains("Importing") && !printed.contains("Training"),
        "{printed}"
    );
    assert_answers(&printed);
    assert_commands(&printed);
    assert_coupon_answers(&printed, 0);
    assert_demand(&printed);
    let export = section(&printed, "Try it from another terminal")[0].trim().to_owned();
    assert!(export.starts_with("export LIKEMIND_API_KEY=lm_"), "{export}");
    Serving {
        program,
        address,
        printed,
        export,
    }
}

impl Serving {
    /// Pastes a command into a shell that has the key.
    fn paste(&self, command: &str) -> String {
        paste(&format!("{}\n{command}", self.export))
    }

    fn assert_commands_about_ratings_work(&self) {
        let commands = &section(&self.printed, "Try it from another terminal")[1..];
        assert!(
            commands.iter().all(|command| command.contains(&self.address)),
            "{commands:?}"
        );
        let answers: Vec<String> = commands.iter().map(|command| self.paste(command)).collect();
        for (command, answer) in commands.iter().zip(&answers) {
            let _: serde_json::Value =
                serde_json::from_str(answer).unwrap_or_else(|error| panic!("{command}: {error}: {answer}"));
        }
        // The last command but one asks for the user "me", who has rated by the command before it.
        assert!(
            answers[4].contains("PERSONALIZATION_PERSONALIZED"),
            "{commands:?}: {answers:?}"
        );
    }

    fn assert_commands_about_coupons_work(&self) {
        let commands = section(&self.printed, "Try the coupons:");
        let expected = [
            "\"user_id\":\"household-",
            ",household-",
            "quickstart-soft-drinks",
            "REASON_CODE_CAMPAIGN_ENDED",
        ];
        assert_eq!(commands.len(), expected.len(), "{commands:?}");
        for (command, expected) in commands.iter().zip(expected) {
            let answer = self.paste(command);
            assert!(answer.contains(expected), "{command}: {answer}");
        }
        // These commands are pasted at once, because the second uses the answer of the first. The last one is refused.
        let redemption = section(&self.printed, "Redeem the yogurt coupon").join("\n");
        let refused = output(&mut bare_command(
            "sh",
            &["-c", &format!("{}\n{redemption}", self.export)],
        ));
        let (redeemed, error) = (
            String::from_utf8(refused.stdout).unwrap(),
            String::from_utf8(refused.stderr).unwrap(),
        );
        assert_eq!(refused.status.code(), Some(3), "{redemption}: {redeemed}\n{error}");
        assert!(redeemed.contains("\"redemption_id\""), "{redeemed}");
        assert!(error.contains("USER_CAP_REACHED"), "{error}");
    }

    /// Ends the campaign, as if the next quickstart came long after this one, and stops the program.
    fn end_the_campaign_and_stop(self, data_dir: &Path) {
        let over = r#"{"campaign": {"campaign_id": "quickstart", "starts_at": "2020-01-01T00:00:00Z", "ends_at": "2020-01-31T00:00:00Z"}}"#;
        let program = env!("CARGO_BIN_EXE_likemind");
        self.paste(&format!(
            "{program} call UpdateCampaign '{over}' --address {}",
            self.address
        ));
        self.program.signal(libc::SIGINT);
        let (exit, log) = self.program.wait();
        assert_eq!(exit.code(), Some(0), "{log}");
        assert_ended(data_dir);
    }
}

#[test]
fn a_quickstart_survives_interruptions_and_every_printed_command_works() {
    let data_dir = folder("quickstart");
    interrupt_and_kill(&data_dir);
    import_and_train(&data_dir);
    let serving = kill_and_serve_again(&data_dir);
    serving.assert_commands_about_ratings_work();
    serving.assert_commands_about_coupons_work();
    serving.end_the_campaign_and_stop(&data_dir);

    // The campaign is active again, and the household that has redeemed the coupon is replaced by another.
    let after = output(&mut quickstart(&data_dir, &["--exit"]));
    assert!(after.status.success(), "{after:?}");
    assert_coupon_answers(&String::from_utf8(after.stdout).unwrap(), 1);
}

#[tokio::test]
async fn with_a_configured_database_no_private_one_is_started() {
    let database = databases::trained_online_retail().await;
    let data_dir = folder("quickstart-unused");
    let mut command = quickstart(&data_dir, &["--exit"]);
    command.env("LIKEMIND__DATABASE__URL", database.url());
    let shown = output(&mut command);
    let printed = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.status.success(),
        "{printed}\n{}",
        String::from_utf8_lossy(&shown.stderr)
    );
    assert!(
        printed.contains("Reusing the existing data and snapshot 1."),
        "{printed}"
    );
    assert_answers(&printed);
    assert!(
        printed.contains("hold no sample of coupons") && !printed.contains("Who should get"),
        "{printed}"
    );
    assert!(!data_dir.exists());
}

#[tokio::test]
async fn a_quickstart_refuses_to_mix_the_sample_with_other_data() {
    let database = TestDatabase::create().await;
    let file = folder("quickstart-ratings.csv");
    fs::write(&file, RATINGS).unwrap();
    succeed(&database, &["import", "ratings", file.to_str().unwrap()]);
    let (code, printed, error) = run(&database, &["quickstart", "--exit", "--listen=127.0.0.1:0"]);
    assert_eq!(code, 1, "{printed}\n{error}");
    assert!(
        error.contains("would mix") && error.contains("likemind train"),
        "{error}"
    );
    assert_eq!(printed, "");
}
