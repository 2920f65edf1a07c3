//! The requests about erasures. The server has no key, so that nobody is erased.

use likemind::grpc::proto::v1::{EraseUserRequest, GetErasureRequest, ListErasuresRequest};

use super::cases::{Case, Tokens, encoded, free_text, i64s, id};

/// Returns the cases of an RPC; `None` for an RPC that is not about erasures.
pub fn cases(method: &str, tokens: &Tokens) -> Option<Vec<Case>> {
    Some(match method {
        "PrivacyService/EraseUser" => vec![id("user_id"), id("request_id"), free_text("reason")],
        "PrivacyService/GetErasure" => vec![
            Case::free("erasure_id")
                .bad("OUT_OF_RANGE", i64s([0, -1, i64::MIN]))
                .good(i64s([1, i64::MAX])),
        ],
        "PrivacyService/ListErasures" => tokens.page(&tokens.erasures[0]),
        _ => return None,
    })
}

/// Returns valid requests of an RPC; `None` for an RPC that is not about erasures.
pub fn valid_requests(method: &str) -> Option<Vec<Vec<u8>>> {
    Some(match method {
        "PrivacyService/EraseUser" => vec![encoded(EraseUserRequest {
            user_id: "somebody".to_owned(),
            request_id: "erase".to_owned(),
            reason: "by letter".to_owned(),
        })],
        "PrivacyService/GetErasure" => vec![encoded(GetErasureRequest { erasure_id: 1 })],
        "PrivacyService/ListErasures" => vec![encoded(a_list_of_erasures())],
        _ => return None,
    })
}

/// Lists the erasures, one a page.
pub fn a_list_of_erasures() -> ListErasuresRequest {
    ListErasuresRequest {
        only_open: false,
        page_size: 1,
        page_token: String::new(),
    }
}
