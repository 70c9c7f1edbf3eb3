-- The measures of consumers/analytics in Flink SQL: the same names, the same answers (docs/analytics.md says what each means,
-- tests/interop holds them equal). By event time and without windows that close: a late event corrects what was given before,
-- so a stream needs a sink that takes updates. The same text runs over what is there (batch) and for ever (streaming).
-- Times are UTC.

-- Messages between an account and a customer: no unsends, edits, standby or dashboard tests.
CREATE VIEW direct_messages AS
SELECT * FROM events WHERE webhook_field = 'messages' AND origin = 'messaging' AND NOT is_deleted;

CREATE VIEW events_by_field AS
SELECT account_id, webhook_field, FLOOR(event_time TO HOUR) AS `hour`, COUNT(*) AS events
FROM events
GROUP BY account_id, webhook_field, FLOOR(event_time TO HOUR);

CREATE VIEW messages_by_hour AS
SELECT account_id, FLOOR(event_time TO HOUR) AS `hour`,
  COUNT(*) FILTER (WHERE NOT is_echo) AS inbound, COUNT(*) FILTER (WHERE is_echo) AS outbound
FROM direct_messages
GROUP BY account_id, FLOOR(event_time TO HOUR);

-- A question is the customer's first message since the last echo; the next echo answers it. Of a question and an answer with
-- the same time the question is the earlier. So every message of a customer belongs to the next echo at or after it, and the
-- earliest of those with the same echo is the question. (LAG and LEAD would say it too, but not in a stream, whose order is
-- that of arrival.)
CREATE VIEW question_times AS
SELECT account_id, customer_id, MIN(asked_ms) AS asked_ms, answered_ms
FROM (
  SELECT asked.account_id, asked.customer_id, asked.event_id, asked.event_ms AS asked_ms,
    MIN(answers.event_ms) AS answered_ms
  FROM (SELECT account_id, customer_id, event_id, event_ms FROM direct_messages WHERE NOT is_echo) AS asked
  LEFT JOIN (SELECT account_id, customer_id, event_ms FROM direct_messages WHERE is_echo) AS answers
    ON answers.account_id = asked.account_id AND answers.customer_id = asked.customer_id
      AND answers.event_ms >= asked.event_ms
  WHERE asked.account_id IS NOT NULL AND asked.customer_id IS NOT NULL
  GROUP BY asked.account_id, asked.customer_id, asked.event_id, asked.event_ms
)
GROUP BY account_id, customer_id, answered_ms;

CREATE VIEW questions AS
SELECT account_id, customer_id,
  CAST(TO_TIMESTAMP_LTZ(asked_ms, 3) AS TIMESTAMP(3)) AS asked_at,
  CAST(TO_TIMESTAMP_LTZ(answered_ms, 3) AS TIMESTAMP(3)) AS answered_at
FROM question_times;

CREATE VIEW first_responses AS
SELECT account_id, customer_id,
  CAST(TO_TIMESTAMP_LTZ(asked_ms, 3) AS TIMESTAMP(3)) AS asked_at,
  CAST(TO_TIMESTAMP_LTZ(answered_ms, 3) AS TIMESTAMP(3)) AS answered_at,
  (answered_ms - asked_ms) / 1000e0 AS seconds
FROM question_times
WHERE answered_ms IS NOT NULL;

CREATE VIEW totals_by_day AS
SELECT account_id, CAST(event_time AS DATE) AS `day`,
  COUNT(*) AS events,
  COUNT(*) FILTER (WHERE is_message AND NOT is_echo) AS inbound,
  COUNT(*) FILTER (WHERE is_message AND is_echo) AS outbound,
  COUNT(*) FILTER (WHERE webhook_field = 'messages' AND origin = 'messaging' AND is_deleted) AS unsent,
  COUNT(*) FILTER (WHERE webhook_field = 'message_edit' AND origin = 'messaging' AND num_edit >= 1) AS edited,
  COUNT(DISTINCT customer_id) FILTER (WHERE is_message AND NOT is_echo) AS active_customers,
  COUNT(*) FILTER (WHERE webhook_field = 'message_reactions' AND origin = 'messaging' AND action = 'react') AS reactions,
  COUNT(*) FILTER (
    WHERE is_message AND NOT is_echo AND ARRAY_CONTAINS(attachments, CAST(ROW('story_mention') AS ROW<type STRING>))
  ) AS story_mentions,
  COUNT(*) FILTER (WHERE is_message AND NOT is_echo AND is_story_reply) AS story_replies,
  COUNT(*) FILTER (WHERE occurred_at IS NULL) AS undated
FROM (SELECT *, webhook_field = 'messages' AND origin = 'messaging' AND NOT is_deleted AS is_message FROM events)
GROUP BY account_id, CAST(event_time AS DATE);

CREATE VIEW new_customers_by_day AS
SELECT account_id, CAST(first_message_at AS DATE) AS `day`, COUNT(*) AS new_customers
FROM (
  SELECT account_id, customer_id, MIN(event_time) AS first_message_at
  FROM direct_messages
  WHERE NOT is_echo AND account_id IS NOT NULL AND customer_id IS NOT NULL
  GROUP BY account_id, customer_id
)
GROUP BY account_id, CAST(first_message_at AS DATE);

CREATE VIEW first_responses_by_day AS
SELECT account_id, CAST(asked_at AS DATE) AS `day`, COUNT(*) AS answered,
  PERCENTILE(seconds, 0.5) AS first_response_median_s, PERCENTILE(seconds, 0.9) AS first_response_p90_s
FROM first_responses
GROUP BY account_id, CAST(asked_at AS DATE);

CREATE VIEW reactions_by_day AS
SELECT account_id, CAST(event_time AS DATE) AS `day`, COALESCE(reaction, 'unknown') AS reaction, COUNT(*) AS reactions
FROM events
WHERE webhook_field = 'message_reactions' AND origin = 'messaging' AND action = 'react'
GROUP BY account_id, CAST(event_time AS DATE), COALESCE(reaction, 'unknown');

CREATE VIEW attachments_by_day AS
SELECT account_id, CAST(event_time AS DATE) AS `day`, attachment.type, COUNT(*) AS attachments
FROM direct_messages CROSS JOIN UNNEST(attachments) AS attachment (type)
GROUP BY account_id, CAST(event_time AS DATE), attachment.type;

CREATE VIEW postbacks_by_day AS
SELECT account_id, CAST(event_time AS DATE) AS `day`, payload, COUNT(*) AS postbacks
FROM events
WHERE webhook_field = 'messaging_postbacks' AND origin = 'messaging' AND payload IS NOT NULL
GROUP BY account_id, CAST(event_time AS DATE), payload;

CREATE VIEW ads_by_day AS
SELECT account_id, CAST(event_time AS DATE) AS `day`, ad_id, COUNT(DISTINCT customer_id) AS conversations
FROM events
WHERE ad_id IS NOT NULL AND origin = 'messaging'
GROUP BY account_id, CAST(event_time AS DATE), ad_id;

CREATE VIEW refs_by_day AS
SELECT account_id, CAST(event_time AS DATE) AS `day`, `ref`, COUNT(DISTINCT customer_id) AS conversations
FROM events
WHERE `ref` IS NOT NULL AND origin = 'messaging'
GROUP BY account_id, CAST(event_time AS DATE), `ref`;

-- A message of the account is seen by its conversation's first receipt at or after it.
CREATE VIEW seen_by_day AS
SELECT account_id, CAST(sent_at AS DATE) AS `day`,
  COUNT(seen_ms) / CAST(COUNT(*) AS DOUBLE) AS seen_share,
  PERCENTILE((seen_ms - sent_ms) / 1000e0, 0.5) AS time_to_seen_median_s
FROM (
  SELECT sent.account_id, sent.event_id, sent.event_time AS sent_at, sent.event_ms AS sent_ms,
    MIN(receipts.event_ms) AS seen_ms
  FROM (
    SELECT account_id, customer_id, event_id, event_time, event_ms FROM direct_messages
    WHERE is_echo AND account_id IS NOT NULL AND customer_id IS NOT NULL
  ) AS sent
  LEFT JOIN (
    SELECT account_id, customer_id, event_ms FROM events
    WHERE webhook_field = 'messaging_seen' AND origin = 'messaging'
  ) AS receipts
    ON receipts.account_id = sent.account_id AND receipts.customer_id = sent.customer_id
      AND receipts.event_ms >= sent.event_ms
  GROUP BY sent.account_id, sent.event_id, sent.event_time, sent.event_ms
)
GROUP BY account_id, CAST(sent_at AS DATE);

CREATE VIEW lag_by_day AS
SELECT account_id, CAST(event_time AS DATE) AS `day`, webhook_field,
  PERCENTILE(meta_to_bridge_s, 0.5) AS meta_to_bridge_median_s,
  PERCENTILE(meta_to_bridge_s, 0.9) AS meta_to_bridge_p90_s
FROM events
GROUP BY account_id, CAST(event_time AS DATE), webhook_field;
