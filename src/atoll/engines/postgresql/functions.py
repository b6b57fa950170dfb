"""Functions: what one call of the store does inside PostgreSQL, in PL/pgSQL, so that it is one round trip.

A teller behind glass. You push all your slips through at once, the teller closes the window, works through
them in order with the ledger to itself, and pushes all the answers back; a slip that may not be done is
answered, not torn up, so it never spoils the ones beside it.

Writers come one at a time (an advisory lock of the transaction, which costs nothing where nothing is
written); the counter row is updated last and by its old value, so revisions are committed in their order
whoever else writes. Never a sequence: its numbers are handed out before the commit, and a reader who has
seen 8 never learns that 7 came later.
"""

from __future__ import annotations

APPLIED, REPLAYED, UNMET, REFUSED, OVER, FROZEN, UNCERTAIN, ENTRY = range(8)
"""What a row of the answer says: the first of each call one of the first seven, each further one ENTRY."""

LOCK = 7021802812440851
"""The advisory lock of writers."""

# The plans are kept for a session's life, and may be made while the tables are still small.
_PLANS = """SET search_path = pg_catalog, pg_temp
SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off"""

# The timeline is the first eight hexadecimal digits of the name of the segment being written; the control
# file learns of a promotion only at the next checkpoint. The system identifier is for ever the same to one
# session, and reading it opens a file: so the session remembers it.
INCARNATION = """CREATE OR REPLACE FUNCTION atoll.incarnation() RETURNS text LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp AS $atoll$
DECLARE
    id text := current_setting('atoll.system', true);
BEGIN
    IF coalesce(id, '') = '' THEN
        SELECT system_identifier INTO id FROM pg_control_system();
        PERFORM set_config('atoll.system', id, false);
    END IF;
    RETURN id || '/' || ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int;
END
$atoll$"""

END_LEASE = """CREATE OR REPLACE FUNCTION atoll.end_lease(
    which text, number bigint, moment timestamptz, OUT newest bigint
) LANGUAGE plpgsql VOLATILE AS $atoll$
DECLARE
    gone record;
    nth integer := 0;
BEGIN
    DELETE FROM atoll.lease l WHERE l.id = which;
    FOR gone IN
        WITH dead AS (DELETE FROM atoll.entry e WHERE e.lease = which RETURNING e.key, e.create_revision)
        SELECT d.key, d.create_revision FROM dead d ORDER BY d.key
    LOOP
        INSERT INTO atoll.event VALUES
            (number + 1, nth, gone.key, NULL, gone.create_revision, NULL, moment);
        nth := nth + 1;
    END LOOP;
    newest := number + (nth > 0)::int;
END
$atoll$"""

# A renewal may commit meanwhile: the row is locked and looked at again before its lease ends.
SWEEP = """CREATE OR REPLACE FUNCTION atoll.sweep(
    number bigint, moment timestamptz, OUT newest bigint
) LANGUAGE plpgsql VOLATILE AS $atoll$
DECLARE
    which text;
BEGIN
    newest := number;
    FOR which IN SELECT l.id FROM atoll.lease l WHERE l.expires <= moment ORDER BY l.expires LOOP
        PERFORM FROM atoll.lease l WHERE l.id = which AND l.expires <= moment FOR UPDATE;
        IF FOUND THEN
            newest := atoll.end_lease(which, newest, moment);
        END IF;
    END LOOP;
END
$atoll$"""

# Trimmed now and then, so that no transaction pays for more than a few rows of it.
COMMIT = """CREATE OR REPLACE FUNCTION atoll.finish(
    before bigint, newest bigint, moment timestamptz, dedupe_s double precision,
    history_max bigint, history_s double precision
) RETURNS void LANGUAGE plpgsql VOLATILE AS $atoll$
DECLARE
    young bigint;
    kept bigint;
    first bigint;
BEGIN
    UPDATE atoll.counter c SET revision = newest WHERE c.revision = before RETURNING c.oldest INTO first;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the counter moved while it was locked' USING ERRCODE = 'serialization_failure';
    END IF;
    IF newest / 64 > before / 64 THEN
        SELECT v.revision INTO young FROM atoll.event v
        WHERE v.revision >= first AND v.at >= moment - make_interval(secs => history_s)
        ORDER BY v.revision LIMIT 1;
        kept := least(greatest(newest - history_max + 1, coalesce(young, newest)), newest);
        IF kept > first THEN
            DELETE FROM atoll.event v WHERE v.revision >= first AND v.revision < kept;
            UPDATE atoll.counter c SET oldest = kept WHERE c.oldest < kept;
        END IF;
        DELETE FROM atoll.request q WHERE q.at <= moment - make_interval(secs => dedupe_s);
    END IF;
END
$atoll$"""

# What was touched, as bell.py reads it, where that fits in the 8000 bytes that a notification may have.
TOLD = """CREATE OR REPLACE FUNCTION atoll.told(before bigint, newest bigint) RETURNS text
LANGUAGE sql STABLE AS $atoll$
SELECT CASE WHEN count(*) <= 64 AND coalesce(sum(octet_length(t.key)), 0) < 3000 THEN
    coalesce(string_agg(t.revision || CASE WHEN t.value IS NULL THEN '-' ELSE '+' END
        || encode(t.key, 'hex'), ' ' ORDER BY t.revision, t.place), '') ELSE '*' END
FROM (SELECT v.* FROM atoll.event v WHERE v.revision > before AND v.revision <= newest
    ORDER BY v.revision, v.place LIMIT 65) t
$atoll$"""

# Under a stricter isolation the snapshot is older than the turn: locking the row finds that out at once, as
# a serialization failure, which the caller tries again.
TRANSACT = f"""CREATE OR REPLACE FUNCTION atoll.transact(
    wait_ms integer, synchronous text, dedupe_s double precision, history_max bigint,
    history_s double precision, request_ids text[],
    guard_keys bytea[], guard_epochs bigint[], guard_revisions bigint[],
    compare_ends integer[], compare_keys bytea[], compare_fields integer[], compare_numbers bigint[],
    compare_values bytea[], operation_ends integer[], operation_keys bytea[], operation_values bytea[],
    operation_leases text[]
) RETURNS TABLE (
    call integer, kind integer, value bytea, revision bigint, create_revision bigint, lease text
) LANGUAGE plpgsql VOLATILE ROWS 2 {_PLANS} AS $atoll$
#variable_conflict use_column
DECLARE
    before bigint; newest bigint; number bigint; era bigint; known bigint;
    moment timestamptz; note text; noted text; here text; leased text;
    compares_from integer; compares_to integer := 0;
    operations_from integer; operations_to integer := 0;
    nth integer; holds boolean; told text := '';
BEGIN
    PERFORM set_config('lock_timeout', wait_ms::text, true);
    PERFORM set_config('synchronous_commit', synchronous, true);
    PERFORM pg_advisory_xact_lock({LOCK});
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        PERFORM FROM atoll.counter c WHERE c.one FOR NO KEY UPDATE;
    END IF;
    SELECT c.revision, c.epoch, c.frozen, c.incarnation INTO STRICT before, era, note, noted
    FROM atoll.counter c WHERE c.one;
    moment := clock_timestamp();
    newest := before;
    IF EXISTS (SELECT FROM atoll.lease l WHERE l.expires <= moment) THEN
        newest := atoll.sweep(newest, moment);
        told := NULL;
    END IF;
    FOR n IN 1 .. cardinality(operation_ends) LOOP
        compares_from := compares_to + 1;
        compares_to := compare_ends[n];
        operations_from := operations_to + 1;
        operations_to := operation_ends[n];
        call := n; value := NULL; revision := newest; create_revision := era; lease := NULL;
        IF request_ids[n] IS NOT NULL THEN
            SELECT q.revision INTO known FROM atoll.request q
            WHERE q.id = request_ids[n] AND q.at > moment - make_interval(secs => dedupe_s);
            IF FOUND THEN
                kind := {REPLAYED}; revision := known;
                RETURN NEXT;
                CONTINUE;
            END IF;
        END IF;
        IF operations_from <= operations_to AND operation_keys[operations_from] IS NULL THEN
            newest := atoll.end_lease(operation_leases[operations_from], newest, moment);
            told := NULL;
            kind := {APPLIED}; revision := newest;
            RETURN NEXT;
            CONTINUE;
        END IF;
        IF note IS NOT NULL AND operations_from <= operations_to THEN
            kind := {FROZEN}; lease := note;
            RETURN NEXT;
            CONTINUE;
        END IF;
        leased := NULL;
        FOR i IN operations_from .. operations_to LOOP
            leased := coalesce(leased, operation_leases[i]);
        END LOOP;
        IF guard_keys[n] IS NOT NULL OR leased IS NOT NULL THEN
            here := coalesce(here, atoll.incarnation());
            IF here <> noted THEN
                kind := {UNCERTAIN}; lease := noted || ' ' || here;
                RETURN NEXT;
                CONTINUE;
            END IF;
        END IF;
        IF guard_keys[n] IS NOT NULL THEN
            PERFORM FROM atoll.entry e WHERE e.key = guard_keys[n] AND e.revision = guard_revisions[n];
            IF NOT FOUND OR guard_epochs[n] <> era THEN
                kind := {REFUSED};
                RETURN NEXT;
                kind := {ENTRY};
                SELECT e.value, e.revision, e.create_revision, e.lease
                INTO value, revision, create_revision, lease
                FROM atoll.entry e WHERE e.key = guard_keys[n];
                RETURN NEXT;
                CONTINUE;
            END IF;
        END IF;
        holds := true;
        FOR i IN compares_from .. compares_to LOOP
            SELECT e.value, e.revision, e.create_revision INTO value, revision, create_revision
            FROM atoll.entry e WHERE e.key = compare_keys[i];
            holds := CASE compare_fields[i]
                WHEN 0 THEN coalesce(revision, 0) = compare_numbers[i]
                WHEN 1 THEN coalesce(create_revision, 0) = compare_numbers[i]
                ELSE coalesce(value = compare_values[i], false) END;
            EXIT WHEN NOT holds;
        END LOOP;
        value := NULL; revision := newest; create_revision := era;
        IF NOT holds THEN
            kind := {UNMET};
            RETURN NEXT;
            kind := {ENTRY};
            FOR i IN compares_from .. compares_to LOOP
                SELECT e.value, e.revision, e.create_revision, e.lease
                INTO value, revision, create_revision, lease
                FROM atoll.entry e WHERE e.key = compare_keys[i];
                RETURN NEXT;
            END LOOP;
            CONTINUE;
        END IF;
        IF leased IS NOT NULL AND NOT EXISTS (SELECT FROM atoll.lease l WHERE l.id = leased) THEN
            kind := {OVER}; lease := leased;
            RETURN NEXT;
            CONTINUE;
        END IF;
        kind := {APPLIED};
        IF operations_from > operations_to THEN
            RETURN NEXT;
            CONTINUE;
        END IF;
        number := newest + 1; newest := number; nth := 0; revision := number;
        RETURN NEXT;
        kind := {ENTRY};
        FOR i IN operations_from .. operations_to LOOP
            IF operation_values[i] IS NULL THEN
                DELETE FROM atoll.entry e WHERE e.key = operation_keys[i]
                RETURNING e.value, e.revision, e.create_revision, e.lease
                INTO value, revision, create_revision, lease;
            ELSE
                value := NULL; revision := number; lease := NULL;
                INSERT INTO atoll.entry AS e VALUES
                    (operation_keys[i], operation_values[i], number, number, operation_leases[i])
                ON CONFLICT (key) DO UPDATE SET
                    value = excluded.value, revision = excluded.revision, lease = excluded.lease
                RETURNING e.create_revision INTO create_revision;
            END IF;
            RETURN NEXT;
            IF revision IS NOT NULL THEN
                INSERT INTO atoll.event VALUES (number, nth, operation_keys[i], operation_values[i],
                    create_revision, operation_leases[i], moment);
                nth := nth + 1;
                told := CASE WHEN length(told) < 3000 AND length(operation_keys[i]) < 2000 THEN told || ' '
                    || number || CASE WHEN operation_values[i] IS NULL THEN '-' ELSE '+' END
                    || encode(operation_keys[i], 'hex') END;
            END IF;
        END LOOP;
        IF nth = 0 THEN
            INSERT INTO atoll.event VALUES (number, 0, NULL, NULL, NULL, NULL, moment);
        END IF;
        IF request_ids[n] IS NOT NULL THEN
            INSERT INTO atoll.request VALUES (request_ids[n], number, moment)
            ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, at = excluded.at;
        END IF;
    END LOOP;
    IF newest > before THEN
        PERFORM atoll.finish(before, newest, moment, dedupe_s, history_max, history_s);
        told := coalesce(told, ' ' || atoll.told(before, newest));
        PERFORM pg_notify('atoll', before || ' ' || newest || told);
    END IF;
END
$atoll$"""

ALL = (INCARNATION, END_LEASE, SWEEP, COMMIT, TOLD, TRANSACT)
