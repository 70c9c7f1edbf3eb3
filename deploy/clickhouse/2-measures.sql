-- The measures of consumers/analytics, for ClickHouse: the same names, the same answers (docs/analytics.md says what each
-- means, tests/interop holds them equal). Views over `events`, by event time: a late event corrects what was shown before.
-- Times are UTC. Where a question is of one account or period, say so in WHERE: every view has account_id and a time.

CREATE VIEW events AS SELECT * EXCEPT earliest_wins FROM stored_events FINAL;

-- Messages between an account and a customer: no unsends, edits, standby or dashboard tests.
CREATE VIEW direct_messages AS
SELECT * FROM events WHERE webhook_field = 'messages' AND origin = 'messaging' AND NOT is_deleted;

CREATE VIEW events_by_field AS
SELECT account_id, webhook_field, toStartOfHour(event_time) AS hour, count() AS events
FROM events
GROUP BY account_id, webhook_field, hour
SETTINGS enable_extended_results_for_datetime_functions = 1; -- else hours beyond 2106 would come out as others

CREATE VIEW messages_by_hour AS
SELECT account_id, toStartOfHour(event_time) AS hour, countIf(NOT is_echo) AS inbound, countIf(is_echo) AS outbound
FROM direct_messages
GROUP BY account_id, hour
SETTINGS enable_extended_results_for_datetime_functions = 1;

-- A question is the customer's first message since the last echo; the next echo answers it. Of a question and an answer with
-- the same time the question is the earlier.
CREATE VIEW questions AS
WITH turns AS (
  SELECT account_id, customer_id, event_time, is_echo,
    lagInFrame(is_echo, 1, true) OVER (
      PARTITION BY account_id, customer_id ORDER BY event_time, is_echo
      ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
    ) AS after_echo
  FROM direct_messages
  WHERE account_id IS NOT NULL AND customer_id IS NOT NULL
), changes AS (
  SELECT account_id, customer_id, event_time AS asked_at, is_echo,
    leadInFrame(toNullable(event_time)) OVER (
      PARTITION BY account_id, customer_id ORDER BY event_time, is_echo
      ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
    ) AS answered_at
  FROM turns
  WHERE is_echo <> after_echo
)
SELECT account_id, customer_id, asked_at, answered_at FROM changes WHERE NOT is_echo;

CREATE VIEW first_responses AS
SELECT account_id, customer_id, asked_at, answered_at, dateDiff('millisecond', asked_at, answered_at) / 1000 AS seconds
FROM questions
WHERE answered_at IS NOT NULL;

CREATE VIEW totals_by_day AS
SELECT account_id, toDate32(event_time) AS day,
  count() AS events,
  countIf(is_message AND NOT is_echo) AS inbound,
  countIf(is_message AND is_echo) AS outbound,
  countIf(webhook_field = 'messages' AND origin = 'messaging' AND is_deleted) AS unsent,
  countIf(webhook_field = 'message_edit' AND origin = 'messaging' AND num_edit >= 1) AS edited,
  uniqExactIf(customer_id, is_message AND NOT is_echo) AS active_customers,
  countIf(webhook_field = 'message_reactions' AND origin = 'messaging' AND action = 'react') AS reactions,
  countIf(is_message AND NOT is_echo AND has(attachments, 'story_mention')) AS story_mentions,
  countIf(is_message AND NOT is_echo AND is_story_reply) AS story_replies,
  countIf(occurred_at IS NULL) AS undated
FROM (SELECT *, webhook_field = 'messages' AND origin = 'messaging' AND NOT is_deleted AS is_message FROM events)
GROUP BY account_id, day;

CREATE VIEW new_customers_by_day AS
SELECT account_id, toDate32(first_message_at) AS day, count() AS new_customers
FROM (
  SELECT account_id, customer_id, min(event_time) AS first_message_at
  FROM direct_messages
  WHERE NOT is_echo AND account_id IS NOT NULL AND customer_id IS NOT NULL
  GROUP BY account_id, customer_id
)
GROUP BY account_id, day;

CREATE VIEW first_responses_by_day AS
SELECT account_id, toDate32(asked_at) AS day, count() AS answered,
  quantileExactInclusive(0.5)(seconds) AS first_response_median_s,
  quantileExactInclusive(0.9)(seconds) AS first_response_p90_s
FROM first_responses
GROUP BY account_id, day;

CREATE VIEW reactions_by_day AS
SELECT account_id, toDate32(event_time) AS day, coalesce(reaction, 'unknown') AS reaction, count() AS reactions
FROM events
WHERE webhook_field = 'message_reactions' AND origin = 'messaging' AND action = 'react'
GROUP BY account_id, day, reaction;

CREATE VIEW attachments_by_day AS
SELECT account_id, day, type, count() AS attachments
FROM (SELECT account_id, toDate32(event_time) AS day, arrayJoin(attachments) AS type FROM direct_messages)
GROUP BY account_id, day, type;

CREATE VIEW postbacks_by_day AS
SELECT account_id, toDate32(event_time) AS day, payload, count() AS postbacks
FROM events
WHERE webhook_field = 'messaging_postbacks' AND origin = 'messaging' AND payload IS NOT NULL
GROUP BY account_id, day, payload;

CREATE VIEW ads_by_day AS
SELECT account_id, toDate32(event_time) AS day, ad_id, uniqExact(customer_id) AS conversations
FROM events
WHERE ad_id IS NOT NULL AND origin = 'messaging'
GROUP BY account_id, day, ad_id;

CREATE VIEW refs_by_day AS
SELECT account_id, toDate32(event_time) AS day, ref, uniqExact(customer_id) AS conversations
FROM events
WHERE ref IS NOT NULL AND origin = 'messaging'
GROUP BY account_id, day, ref;

-- A message of the account is seen by its conversation's first receipt at or after it.
CREATE VIEW seen_by_day AS
SELECT account_id, toDate32(sent_at) AS day,
  count(seen_at) / count() AS seen_share,
  quantileExactInclusive(0.5)(dateDiff('millisecond', sent_at, seen_at) / 1000) AS time_to_seen_median_s
FROM (
  SELECT sent.account_id AS account_id, sent.event_time AS sent_at, receipts.event_time AS seen_at
  FROM (
    SELECT account_id, customer_id, event_time FROM direct_messages
    WHERE is_echo AND account_id IS NOT NULL AND customer_id IS NOT NULL
  ) AS sent
  ASOF LEFT JOIN (
    SELECT account_id, customer_id, toNullable(event_time) AS event_time
    FROM events
    WHERE webhook_field = 'messaging_seen' AND origin = 'messaging'
  ) AS receipts
  ON sent.account_id = receipts.account_id AND sent.customer_id = receipts.customer_id
    AND sent.event_time <= receipts.event_time
)
GROUP BY account_id, day;

CREATE VIEW lag_by_day AS
SELECT account_id, toDate32(event_time) AS day, webhook_field,
  quantileExactInclusive(0.5)(dateDiff('millisecond', occurred_at, received_at) / 1000) AS meta_to_bridge_median_s,
  quantileExactInclusive(0.9)(dateDiff('millisecond', occurred_at, received_at) / 1000) AS meta_to_bridge_p90_s
FROM events
GROUP BY account_id, day, webhook_field;
