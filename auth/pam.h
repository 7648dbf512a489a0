/*
 * What the provider auth-pam and its helper say to each other: fields that end
 * in a NUL, in this order.
 *
 *	pam	  the provider: runs the helper for each question
 *	pam_judge the helper: a process for one transaction of PAM's
 */
#ifndef AUTH_PAM_H
#define AUTH_PAM_H

/* Beside the modules: it is of use to nobody else. */
#define PAM_JUDGE "smtp-frontd-pam"

/* To it, on descriptor 3. */
enum pam_question {
	PAM_Q_SERVICE,
	PAM_Q_USER,
	PAM_Q_PASSWORD,
	PAM_Q_CLIENT, /* its address, or "" */
	PAM_QUESTIONS
};

/* From it, on descriptor 1, before it ends with 0. */
enum pam_answer {
	PAM_A_RESULT, /* PAM_ACCEPTED and so on */
	PAM_A_DELAY,  /* ms, before a refusal is told */
	PAM_A_USER,   /* as the modules have it in the end */
	PAM_A_REASON,
	PAM_ANSWERS
};

#define PAM_ACCEPTED	      "accepted"
#define PAM_DENIED	      "denied"
#define PAM_PASSWORD_EXPIRED  "password expired"
#define PAM_ACCOUNT_EXPIRED   "account expired"
#define PAM_ACCOUNT_FORBIDDEN "account forbidden"
#define PAM_UNAVAILABLE	      "unavailable"

/* No field is longer, with its NUL; PAM has no longer responses. */
#define PAM_FIELD_SIZE 512

#endif
