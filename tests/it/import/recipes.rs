//! The recipes of docs/importing.md, run as they stand there on a few made-up lines of each format.

use std::path::{Path, PathBuf};

use tabular::testing::Cell::{Empty, Moment, Number, Text};
use tabular::testing::workbook;

use super::content::fresh_database;
use crate::support::postgres::scratch;
use crate::support::program::{bare_command, output, run};

/// Returns the commands under a heading of the page. A command goes on after a backslash or a pipe at the end of a line.
fn commands(heading: &str) -> Vec<String> {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/importing.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, section) = page.split_once(&format!("\n### {heading}\n")).unwrap();
    let block = section
        .split("```console\n")
        .nth(1)
        .unwrap()
        .split("\n```")
        .next()
        .unwrap();
    let mut commands: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in block.lines() {
        match (goes_on || line.starts_with(' '), commands.last_mut()) {
            (true, Some(command)) => *command = format!("{command}\n{line}"),
            _ => commands.push(line.to_owned()),
        }
        goes_on = line.ends_with(['\\', '|']);
    }
    commands
}

/// Runs a command of the page in `folder`, with the program of this build. Returns its standard output.
fn shell(url: &str, folder: &Path, command: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_likemind")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut shell = bare_command("sh", &["-c", command]);
    shell
        .current_dir(folder)
        .env("LIKEMIND__DATABASE__URL", url)
        .env("PATH", path);
    let output = output(&mut shell);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command}\n{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

#[tokio::test]
async fn movielens() {
    let (content, folder) = (fresh_database().await, scratch());
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("u.data", b"196\t242\t3\t881250949\n186\t302\t3\t891717742\n");
    write("ratings.dat", b"1::1193::5::978300760\n1::661::3::978302109\n");
    write("movies.dat", b"1193::Caf\xe9: \"One\" (1975)::Drama\n");
    write(
        "ratings.csv",
        b"userId,movieId,rating,timestamp\n1,296,5.0,1147880044\n1,306,0.5,1147868817\n",
    );
    for command in commands("MovieLens") {
        shell(content.database.url(), folder.path(), &command);
    }
    let ratings = content.rows("rating").await;
    assert_eq!(ratings.len(), 6);
    assert!(
        ratings.contains(&"rating|1|306|0.5|1147868817.000000".to_owned()),
        "{ratings:?}"
    );
    assert!(
        ratings.contains(&"rating|196|242|3|881250949.000000".to_owned()),
        "{ratings:?}"
    );
    let items = content.rows("item").await;
    assert!(
        items.contains(&"item|1193|Café: \"One\" (1975)|Drama|t".to_owned()),
        "{items:?}"
    );
}

#[tokio::test]
async fn netflix_prize() {
    let (content, folder) = (fresh_database().await, scratch());
    let text = "1:\r\n1488844,3,2005-09-06\r\n822109,5,2005-05-13\r\n2:\r\n885013,4,2005-10-19\r\n";
    std::fs::write(folder.path().join("combined_data_1.txt"), text).unwrap();
    for command in commands("Netflix Prize") {
        shell(content.database.url(), folder.path(), &command);
    }
    assert_eq!(
        content.rows("rating").await,
        [
            "rating|1488844|1|3|1125964800.000000",
            "rating|822109|1|5|1115942400.000000",
            "rating|885013|2|4|1129680000.000000"
        ]
    );
}

#[tokio::test]
async fn online_retail() {
    let (content, folder) = (fresh_database().await, scratch());
    let names = [
        "InvoiceNo",
        "StockCode",
        "Description",
        "Quantity",
        "InvoiceDate",
        "UnitPrice",
        "CustomerID",
        "Country",
    ];
    let at = Moment(40_513.0 + 506.0 / 1_440.0);
    let kingdom = Text("United Kingdom");
    let rows = [
        names.map(Text).to_vec(),
        vec![
            Number(536_365.0),
            Text("85123A"),
            Text("HOLDER"),
            Number(6.0),
            at,
            Number(2.55),
            Number(17_850.0),
            kingdom,
        ],
        vec![
            Text("C536379"),
            Text("D"),
            Text("Discount"),
            Number(-1.0),
            at,
            Number(27.5),
            Number(14_527.0),
            kingdom,
        ],
        vec![
            Number(536_414.0),
            Text("22139"),
            Empty,
            Number(56.0),
            at,
            Number(0.0),
            Empty,
            kingdom,
        ],
        vec![
            Number(536_415.0),
            Number(22_139.0),
            Empty,
            Number(1.0),
            at,
            Number(0.001),
            Number(17_850.0),
            kingdom,
        ],
    ];
    std::fs::write(
        folder.path().join("Online Retail.xlsx"),
        workbook("Online Retail", &rows),
    )
    .unwrap();
    for command in commands("Online Retail") {
        shell(content.database.url(), folder.path(), &command);
    }
    let at = "1291191960.000000";
    assert_eq!(
        content.rows("purchase").await,
        [
            format!("purchase|536365|17850|85123A|1|6|1530|GBP|{at}"),
            format!("purchase|536415|17850|22139|1|1|0|GBP|{at}"),
            format!("purchase|C536379|14527|D|1|-1|-2750|GBP|{at}"),
        ]
    );
    assert!(content.rows("item").await.contains(&"item|85123A|HOLDER|t".to_owned()));
}

#[tokio::test]
async fn shopify() {
    let (content, folder) = (fresh_database().await, scratch());
    let text = "Name,Email,Financial Status,Currency,Created at,Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku\n\
                #1001,ann@example.com,paid,USD,2023-01-05 10:15:30 -0500,2,Tea,5.00,TEA\n\
                #1001,,,,,1,Pot,12.50,POT\n\
                #1002,bob@example.com,voided,USD,2023-01-06 10:15:30 -0500,1,Tea,5.00,TEA\n\
                #1003,bob@example.com,partially_refunded,USD,2023-01-07 10:15:30 -0500,1,Tea,5.00,TEA\n";
    std::fs::write(folder.path().join("orders_export.csv"), text).unwrap();
    for command in commands("Shopify") {
        shell(content.database.url(), folder.path(), &command);
    }
    assert_eq!(
        content.rows("purchase").await,
        [
            "purchase|#1001|ann@example.com|POT|1|1|1250|USD|1672931730.000000",
            "purchase|#1001|ann@example.com|TEA|1|2|1000|USD|1672931730.000000",
            "purchase|#1003|bob@example.com|TEA|1|1|500|USD|1673104530.000000",
        ]
    );
}

#[tokio::test]
async fn woocommerce() {
    let (content, folder) = (fresh_database().await, scratch());
    let text = "Order Number,Order Status,Order Date,Email (Billing),Item #,Item Name,SKU,Quantity,Item Cost\n\
                501,Completed,2023-07-01 12:30,ann@example.com,1,Tea,TEA,2,5.95\n\
                501,Completed,2023-07-01 12:30,ann@example.com,2,Pot,POT,1,12.50\n\
                502,Cancelled,2023-07-01 13:30,bob@example.com,1,Tea,TEA,1,5.95\n";
    std::fs::write(folder.path().join("orders.csv"), text).unwrap();
    for command in commands("WooCommerce") {
        shell(content.database.url(), folder.path(), &command);
    }
    assert_eq!(
        content.rows("purchase").await,
        [
            "purchase|501|ann@example.com|POT|1|1|1250|EUR|1688207400.000000",
            "purchase|501|ann@example.com|TEA|1|2|1190|EUR|1688207400.000000",
        ]
    );
}

/// DuckDB need not be installed: what it prints takes its place before the pipe.
#[tokio::test]
async fn a_contest_with_joins() {
    let (content, folder) = (fresh_database().await, scratch());
    for (kind, text) in [
        ("campaigns", "campaign_id,starts_at,ends_at\n13,2013-05-19,2013-07-05\n"),
        ("coupons", "coupon_id,campaign_id,percent\n27,13,10\n"),
    ] {
        let file = folder.path().join(kind);
        std::fs::write(&file, text).unwrap();
        let (code, _, errors) = run(
            &content.database,
            &["import", kind, file.to_str().unwrap(), "--set=currency=INR"],
        );
        assert_eq!(code, 0, "{errors}");
    }
    let joined = "coupon_id,customer_id,redeemed_at,redemption_status\n27,1053,19/05/13,0\n27,48,19/05/13,1\n";
    std::fs::write(folder.path().join("joined.csv"), joined).unwrap();
    let commands = commands("A contest, with joins through DuckDB");
    let (query, import) = commands[0].split_once("|\n").unwrap();
    assert!(query.starts_with("duckdb -csv -c"), "{query}");
    let output = shell(
        content.database.url(),
        folder.path(),
        &format!("cat joined.csv |{import}"),
    );
    assert!(output.contains("read 1 = stored 1"), "{output}");
    let users = "SELECT count(*) FROM redemptions JOIN users ON users.id = user_id WHERE users.external_id = '48'";
    assert_eq!(content.number(users).await, 1);
}
