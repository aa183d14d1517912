-- Rows of trace_log are made by the writer, not by a view. A span that is alone in its trace, as far as is known, has its id only
-- there (the 8 bytes that each `row` begins with); l7_log has the rest, with its trace_key, and traced is false. Rows that are
-- stored already stay as they are.
DROP VIEW IF EXISTS trace_log_mv;

ALTER TABLE trace_log COMMENT COLUMN row 'RowBinary of the row in l7_log, or only its id';
