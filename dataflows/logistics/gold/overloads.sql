-- One row per ticket whose gross weight is above the truck's permit, or that has no valid permit; key ticket_id.
SELECT
  ticket.ticket_id,
  ticket.site,
  ticket.truck,
  ticket.weighed_at,
  ticket.gross_kg,
  permit.max_gross_kg,
  ticket.gross_kg - permit.max_gross_kg AS excess_kg,
  permit.permit_no IS NULL AS without_permit
FROM tickets ticket
LEFT JOIN permits permit
  ON permit.permit_no = ticket.permit_no
  AND CAST(ticket.weighed_at AS DATE) >= permit.valid_from
  AND (permit.valid_to IS NULL OR CAST(ticket.weighed_at AS DATE) <= permit.valid_to)
WHERE permit.permit_no IS NULL OR ticket.gross_kg > permit.max_gross_kg
