use super::*;
use crate::trace::TraceHeaders;
use proptest::prelude::*;

#[test]
fn literals_become_placeholders() {
    for (text, expected) in [
        ("SELECT 1", "SELECT ?"),
        (
            "select * from t where a='it''s' and b=\"x\\\"y\" and c=0xFF",
            "select * from t where a=? and b=? and c=?",
        ),
        (
            "select a1, t.b2 from t1 where x = -1.5e-3 and y is NULL and z = true",
            "select a1, t.b2 from t1 where x = -? and y is NULL and z = true",
        ),
        ("select x from t where id in (1, 2,3)", "select x from t where id in (?)"),
        (
            "select x from t where id IN ( 'a' , -2 ) or b in (?, ?)",
            "select x from t where id IN ( ?) or b in (?)",
        ),
        (
            "select x from t where id in (select id from u where v = 3)",
            "select x from t where id in (select id from u where v = ?)",
        ),
        ("select x from t where id in (1, f(2), 3)", "select x from t where id in (?, f(?), ?)"),
        ("insert into t values (1,'a'),(2,'b')", "insert into t values (?,?),(?,?)"),
        ("select 'cut off", "select ?"),
        ("select x'00ff', N'a', b'01', _binary 'q\\", "select ?, ?, ?, _binary ?"),
        (
            "select `a 1` from `t``2` where @v1 = :name and p = $1",
            "select `a 1` from `t``2` where @v1 = :name and p = $1",
        ),
        ("select $$secret$$, $t$it's$t$ from t", "select ?, ? from t"),
        ("/* id=7 */ select a -- 5\nfrom t # 6", "select a from t"),
        ("select/*x*/1", "select ?"),
        ("/*!40101 SET NAMES 'utf8' */", "SET NAMES ?"),
        ("select größe from t where ü = 'ä'", "select größe from t where ü = ?"),
    ] {
        assert_eq!(sql(text), expected, "{text}");
    }
}

#[test]
fn statements_without_literals_are_not_copied() {
    assert!(matches!(sql("select a from t where b = ?"), Cow::Borrowed(_)));
}

#[test]
fn endpoints_are_verb_and_table() {
    for (text, expected) in [
        ("SELECT * FROM users", "SELECT users"),
        ("(select a from `db`.`my t` b join c) union select 1", "SELECT db.my t"),
        ("select (select max(x) from inner_t), extract(year from d) from outer_t", "SELECT outer_t"),
        ("select * from (select a from t1) x", "SELECT t1"),
        ("select 1", "SELECT"),
        ("/* c */ insert ignore into tmp (a) values (1)", "INSERT tmp"),
        ("INSERT users VALUES (1)", "INSERT users"),
        ("replace into \"Quoted\" values (1)", "REPLACE Quoted"),
        ("update low_priority t set a=1", "UPDATE t"),
        ("delete from t where 1", "DELETE t"),
        ("delete a from a join b", "DELETE a"),
        ("create table if not exists `x` (id int)", "CREATE x"),
        ("create unique index i on t (a)", "CREATE t"),
        ("create or replace definer=`r`@`%` view v as select 1", "CREATE v"),
        ("drop database if exists d", "DROP d"),
        ("truncate t", "TRUNCATE t"),
        ("truncate table s.t", "TRUNCATE s.t"),
        ("alter table t add c int", "ALTER t"),
        ("call p(1)", "CALL p"),
        ("with c as (select * from t) select * from c", "WITH t"),
        ("desc t", "DESC t"),
        ("explain select * from t", "EXPLAIN t"),
        ("show columns from t", "SHOW t"),
        ("load data local infile 'f' into table t", "LOAD t"),
        ("set names utf8", "SET"),
        ("commit", "COMMIT"),
    ] {
        assert_eq!(sql_endpoint(text).as_deref(), Some(expected), "{text}");
    }
    for text in ["", "abcd", "selected x", "'select'", "42"] {
        assert_eq!(sql_endpoint(text), None, "{text}");
    }
}

#[test]
fn comments_carry_trace_context() {
    let ids = |sql: &str| {
        let found = trace_context(sql, &TraceHeaders::default());
        (found.trace_id, found.span_id)
    };
    let w3c = (Some("4bf92f3577b34da6a3ce929d0e0e4736".into()), Some("00f067aa0ba902b7".into()));
    let value = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(ids(&format!("/* traceparent:{value} */ select 1")), w3c);
    assert_eq!(ids(&format!("select 1 /*action='a%20b',traceparent='{value}',x='y'*/")), w3c);
    assert_eq!(ids(&format!("select 1 -- traceparent = {value}")), w3c);
    assert_eq!(ids("# TraceID: abc, SpanID: d-e\nselect 1"), (Some("abc".into()), Some("d-e".into())));
    assert_eq!(ids(&format!("select 'traceparent:{value}'")), (None, None));
    assert_eq!(ids("/* ü: ä=, trace_id */ select 1"), (None, None));
}

proptest! {
    #[test]
    fn any_text_is_cut_into_itself(text in "(?s).{0,200}") {
        let joined: String = tokens::Tokens::new(&text).map(|t| t.text).collect();
        prop_assert_eq!(joined, text);
    }

    #[test]
    fn masking_twice_changes_nothing_more(text in "[a-z0-9 ='\"(),?$#/*`.-]{0,80}") {
        let once = sql(&text).into_owned();
        let _ = (sql_endpoint(&text), trace_context(&text, &TraceHeaders::default()));
        prop_assert!(!tokens::Tokens::new(&once).any(|t| t.kind == tokens::Kind::Text), "{}", once);
    }
}
