//! Corrections of the attributes of a user.

use likemind::grpc::proto::v1::{AttributeCorrection, AttributeValue, RectifyUserRequest};
use sqlx::PgConnection;
use tonic::Code;

use crate::support::answers::{assert_invalid, assert_status};
use crate::support::caller::Caller;
use crate::support::postgres::{TestDatabase, execute};
use crate::support::program::Server;

fn request(set: &[(&str, &str)], remove: &[&str]) -> RectifyUserRequest {
    let value = |&(name, value): &(&str, &str)| AttributeValue {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    RectifyUserRequest {
        user_id: "ada".to_owned(),
        set: set.iter().map(value).collect(),
        remove: remove.iter().map(|&name| name.to_owned()).collect(),
        reason: "the user has moved".to_owned(),
    }
}

fn correction(name: &str, was: Option<&str>, is: Option<&str>) -> AttributeCorrection {
    AttributeCorrection {
        name: name.to_owned(),
        was: was.map(str::to_owned),
        is: is.map(str::to_owned),
    }
}

async fn stored(connection: &mut PgConnection) -> Vec<(String, String)> {
    sqlx::query_as("SELECT name, value FROM user_attributes ORDER BY name")
        .fetch_all(connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_correction_sets_and_removes_attributes_and_answers_what_each_was_and_is() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let mut privacy = Caller::of(&server).await.privacy;
    let unknown = privacy
        .rectify_user(request(&[("town", "Ely")], &[]))
        .await
        .unwrap_err();
    assert_status(&unknown, Code::NotFound, "USER_NOT_FOUND");
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "INSERT INTO users (external_id) VALUES ('ada');
         INSERT INTO user_attributes SELECT id, name, 'Elj' FROM users, UNNEST(ARRAY['town', 'birthplace', 'plan']) AS name",
    )
    .await;

    let correct = request(
        &[("town", "Ely"), ("plan", "Elj"), ("age", "36")],
        &["birthplace", "shoe size"],
    );
    let answer = privacy.rectify_user(correct.clone()).await.unwrap().into_inner();
    assert_eq!(
        answer.attributes,
        [
            correction("age", None, Some("36")),
            correction("birthplace", Some("Elj"), None),
            correction("plan", Some("Elj"), Some("Elj")),
            correction("shoe size", None, None),
            correction("town", Some("Elj"), Some("Ely")),
        ]
    );
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let corrected = [pair("age", "36"), pair("plan", "Elj"), pair("town", "Ely")];
    assert_eq!(stored(&mut connection).await, corrected);

    // The audit names the user by number, and no value: it outlives the erasure of the user.
    let audited: Vec<(String, String, i64)> =
        sqlx::query_as("SELECT subject, note, row_count FROM audit WHERE action = 'USER_RECTIFIED' ORDER BY id")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    let number: i64 = sqlx::query_scalar("SELECT id FROM users")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let note = "age, birthplace, town: the user has moved".to_owned();
    assert_eq!(audited, [(format!("user {number}"), note, 3)]);

    // The same again changes nothing.
    let again = privacy.rectify_user(correct).await.unwrap().into_inner();
    assert_eq!(again.attributes[4], correction("town", Some("Ely"), Some("Ely")));
    assert_eq!(stored(&mut connection).await, corrected);
}

#[tokio::test]
async fn a_correction_names_each_attribute_once_and_at_least_one() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let mut privacy = Caller::of(&server).await.privacy;
    let mut refused = async |request| privacy.rectify_user(request).await.unwrap_err();
    let none = refused(request(&[], &[])).await;
    assert_invalid(&none, "BATCH_SIZE_OUT_OF_RANGE", &["set"]);
    let twice = refused(request(&[("town", "Ely"), ("town", "Bath")], &[])).await;
    assert_invalid(&twice, "DUPLICATE_ATTRIBUTE", &["set[1].name"]);
    let both = refused(request(&[("town", "Ely")], &["plan", "town"])).await;
    assert_invalid(&both, "DUPLICATE_ATTRIBUTE", &["remove[1]"]);
    let empty = refused(request(&[("town", "")], &["\u{7}"])).await;
    assert_eq!(empty.code(), Code::InvalidArgument, "{empty:?}");
}
