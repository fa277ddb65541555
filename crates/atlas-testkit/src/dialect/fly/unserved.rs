//! The documented calls that this Fly does not serve, because atlas does not make them. Each is
//! answered with 501 and its name in Fly's document, so that a client that makes one does not
//! conclude that the path is unknown.

use http::Method;

use crate::dialect::unserved::documented;

/// Method, path after `/v1/` (`*` for one segment) and operation id, as in Fly's document.
const CALLS: &[(&str, &str, &str)] = &[
    ("GET", "apps/*/certificates", "App_Certificates_list"),
    ("DELETE", "apps/*/certificates/*", "App_Certificates_delete"),
    ("GET", "apps/*/certificates/*", "App_Certificates_show"),
    (
        "DELETE",
        "apps/*/certificates/*/acme",
        "App_Certificates_acme_delete",
    ),
    (
        "POST",
        "apps/*/certificates/*/check",
        "App_Certificates_check",
    ),
    (
        "DELETE",
        "apps/*/certificates/*/custom",
        "App_Certificates_custom_delete",
    ),
    (
        "POST",
        "apps/*/certificates/acme",
        "App_Certificates_acme_create",
    ),
    (
        "POST",
        "apps/*/certificates/custom",
        "App_Certificates_custom_create",
    ),
    ("POST", "apps/*/deploy_token", "App_create_deploy_token"),
    (
        "POST",
        "apps/*/machines/*/memory/reclaim",
        "Machines_reclaim_memory",
    ),
    ("GET", "apps/*/secretkeys", "Secretkeys_list"),
    ("DELETE", "apps/*/secretkeys/*", "Secretkey_delete"),
    ("GET", "apps/*/secretkeys/*", "Secretkey_get"),
    ("POST", "apps/*/secretkeys/*", "Secretkey_set"),
    ("POST", "apps/*/secretkeys/*/decrypt", "Secretkey_decrypt"),
    ("POST", "apps/*/secretkeys/*/encrypt", "Secretkey_encrypt"),
    ("POST", "apps/*/secretkeys/*/generate", "Secretkey_generate"),
    ("POST", "apps/*/secretkeys/*/sign", "Secretkey_sign"),
    ("POST", "apps/*/secretkeys/*/verify", "Secretkey_verify"),
    ("DELETE", "apps/*/secrets/*", "Secret_delete"),
    ("GET", "apps/*/secrets/*", "Secret_get"),
    ("POST", "apps/*/secrets/*", "Secret_create"),
    ("GET", "postgres", "Postgres_list"),
    ("POST", "postgres", "Postgres_create"),
    ("DELETE", "postgres/*", "Postgres_delete"),
    ("GET", "postgres/*", "Postgres_show"),
    (
        "POST",
        "postgres/*/attachments",
        "Postgres_attachments_create",
    ),
    (
        "DELETE",
        "postgres/*/attachments/*",
        "Postgres_attachments_delete",
    ),
    ("GET", "postgres/*/backups", "Postgres_backups_list"),
    ("POST", "postgres/*/backups", "Postgres_backups_create"),
    ("GET", "postgres/*/databases", "Postgres_databases_list"),
    ("POST", "postgres/*/databases", "Postgres_databases_create"),
    (
        "DELETE",
        "postgres/*/databases/*",
        "Postgres_databases_delete",
    ),
    (
        "GET",
        "postgres/*/databases/*/extensions",
        "Postgres_extensions_list",
    ),
    (
        "POST",
        "postgres/*/databases/*/extensions",
        "Postgres_extensions_enable",
    ),
    (
        "DELETE",
        "postgres/*/databases/*/extensions/*",
        "Postgres_extensions_disable",
    ),
    ("POST", "postgres/*/fork", "Postgres_fork"),
    (
        "GET",
        "postgres/*/queries/active",
        "Postgres_queries_active",
    ),
    ("GET", "postgres/*/queries/slow", "Postgres_queries_slow"),
    ("POST", "postgres/*/restore", "Postgres_restore"),
    ("GET", "postgres/*/users", "Postgres_users_list"),
    ("POST", "postgres/*/users", "Postgres_users_create"),
    ("DELETE", "postgres/*/users/*", "Postgres_users_delete"),
    ("PATCH", "postgres/*/users/*", "Postgres_users_update_role"),
    (
        "GET",
        "postgres/*/users/*/credentials",
        "Postgres_users_credentials",
    ),
    (
        "POST",
        "postgres/*/users/*/rotate_password",
        "Postgres_users_rotate_password",
    ),
    ("POST", "tokens/authenticate", "Tokens_authenticate"),
    ("POST", "tokens/authorize", "Tokens_authorize"),
    ("POST", "tokens/kms", "Tokens_request_Kms"),
    ("POST", "tokens/oidc", "Tokens_request_OIDC"),
];

/// The name of a call that is documented and not served.
pub(super) fn name(method: &Method, path: &str) -> Option<&'static str> {
    documented(CALLS, method, path.strip_prefix("/v1/")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::fly::route::Route;

    #[test]
    fn a_call_is_served_or_has_a_name_and_never_both() {
        for (method, pattern, call) in CALLS {
            let method: Method = method.parse().unwrap();
            let path = format!("/v1/{}", pattern.replace('*', "x1"));
            assert_eq!(name(&method, &path), Some(*call));
            assert_eq!(Route::of(&method, &path), None, "{path} is served");
        }
        for path in [
            "/v1/nothing",
            "/v1/postgres//users",
            "/v1/postgres/a/b/c",
            "/postgres",
        ] {
            assert_eq!(name(&Method::GET, path), None, "{path}");
        }
    }
}
