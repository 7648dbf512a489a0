# smtp-frontd: GNU make. Everything is built below $(B), in the layout it is
# installed in, so that the built and the installed program find their modules
# in the same way.

VERSION  = 0.1.0
PREFIX  ?= /usr/local
SBINDIR ?= $(PREFIX)/sbin
BINDIR  ?= $(PREFIX)/bin
LIBDIR  ?= $(PREFIX)/lib
MANDIR  ?= $(PREFIX)/share/man
ETCDIR  ?= /etc
UNITDIR ?= $(or $(shell pkg-config --variable=systemdsystemunitdir systemd \
	2>/dev/null),/lib/systemd/system)
SYSUSERSDIR ?= /usr/lib/sysusers.d
DOCDIR  ?= $(PREFIX)/share/doc/smtp-frontd
B       ?= build

CFLAGS  ?= -O2 -g
HARDEN  ?= -D_FORTIFY_SOURCE=2 -fstack-protector-strong \
	-fstack-clash-protection
HARDEN_LD ?= -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack
WARN    ?= -Wall -Wextra -Wformat=2 -Wshadow -Wstrict-prototypes \
	-Wmissing-prototypes -Wpointer-arith -Wimplicit-fallthrough
ALL_CFLAGS = -std=c11 -D_GNU_SOURCE -I. -fPIC $(WARN) $(HARDEN) \
	-DVERSION='"$(VERSION)"' \
	-DMODULE_DIR='"../$(notdir $(LIBDIR))/smtp-frontd"' $(CPPFLAGS) $(CFLAGS)
ALL_LDFLAGS = -Wl,--as-needed $(HARDEN_LD) $(LDFLAGS)

# The layers, lowest first; tests/layers reads this: a file may include headers
# of layers to its left only. A colon ends a layer.
LAYERS = lib/clock lib/text lib/crc32c lib/runtime lib/siphash : \
	lib/ticket lib/module lib/systemd : \
	lib/message lib/log lib/tls lib/scram : lib/conn lib/dns lib/sandbox \
	lib/passwd lib/listen_spec lib/network lib/source lib/proxy_header \
	lib/spawn : config : \
	sasl auth : auth/provider : facts counters keyring penalty : \
	auth/http : auth/file auth/oauth2 auth/dovecot auth/checkpassword auth/pam \
	peer greeting starttls smtp backend relay upstream \
	proxy : handover vault : keeper : probe session : \
	children notify listen_socket : listen_keeper : listen_load : listen : smtp-frontd

# A line each, so that two changes rarely meet.
MAIN = \
	auth \
	backend \
	backend_tls \
	children \
	config \
	config_check \
	config_clean \
	config_file \
	config_print \
	config_source \
	config_table \
	config_types \
	counters \
	greeting \
	handover \
	keeper \
	keeper_pool \
	keyring \
	lib/conn \
	lib/crc32c \
	lib/dns \
	lib/dns_tlsa \
	lib/listen_spec \
	lib/log \
	lib/message \
	lib/module \
	lib/network \
	lib/proxy_header \
	lib/proxy_header_write \
	lib/runtime \
	lib/sandbox \
	lib/siphash \
	lib/source \
	lib/text \
	lib/ticket \
	lib/tls_load \
	listen \
	listen_keeper \
	listen_load \
	listen_socket \
	notify \
	peer \
	peer_proxy \
	penalty \
	penalty_file \
	probe \
	proxy \
	relay \
	sasl \
	sasl_token \
	session \
	smtp \
	smtp-frontd \
	smtp_auth \
	smtp_delay \
	smtp_external \
	smtp_offer \
	smtp_reply \
	starttls \
	starttls_ticket \
	upstream \
	upstream_header \
	vault \
	vault_exchange \
	vault_penalty \
	vault_salt \
	vault_tls
# A module: what it is made of, and the libraries that it alone brings.
MODULES   = systemd tls sasl-secret auth-file auth-http auth-oauth2 \
	auth-checkpassword auth-dovecot auth-pam
systemd_SRC  = lib/systemd
systemd_LIBS = -lsystemd
tls_SRC   = lib/tls lib/tls_binding lib/tls_settings lib/tls_server lib/tls_sign \
	lib/tls_warm lib/tls_keys lib/tls_key lib/tls_file lib/tls_scheme lib/tls_ticket \
	lib/tls_verify lib/tls_chain lib/tls_client lib/tls_pair lib/tls_names \
	lib/tls_staple lib/text
tls_LIBS  = -lssl -lcrypto
sasl-secret_SRC  = sasl_secret sasl_cram sasl_scram sasl_prep lib/scram \
	lib/text
sasl-secret_LIBS = -lcrypto -lidn
auth-file_SRC  = auth/file lib/passwd lib/scram lib/text lib/message
auth-file_LIBS = -lcrypto -lcrypt
auth-http_SRC  = auth/http auth/http_url auth/http_question auth/http_answer \
	auth/http_fetch auth/http_verdict auth/http_text lib/text lib/message
auth-http_LIBS = -lcurl
auth-dovecot_SRC  = auth/dovecot auth/dovecot_conn auth/dovecot_line \
	auth/dovecot_login auth/dovecot_question auth/dovecot_reply lib/dns \
	lib/text lib/message
auth-dovecot_LIBS = -lcares
auth-oauth2_SRC  = auth/oauth2 auth/oauth2_answer auth/oauth2_cache \
	auth/http_url auth/http_question auth/http_answer auth/http_fetch \
	auth/http_text lib/text lib/message
auth-oauth2_LIBS = -lcurl -ljansson -lcrypto
auth-checkpassword_SRC = auth/checkpassword lib/spawn lib/text lib/message
auth-pam_SRC = auth/pam lib/module lib/spawn lib/text lib/message
PASSWD    = smtp-frontd-passwd lib/passwd lib/scram lib/text
# A process for one question to PAM; it lies beside the modules.
PAM_JUDGE = auth/pam_judge lib/sandbox

SRC  = $(sort $(MAIN) $(PASSWD) $(PAM_JUDGE) $(foreach m,$(MODULES),$($m_SRC)))
BIN  = $(B)/sbin/smtp-frontd $(B)/bin/smtp-frontd-passwd \
	$(B)/lib/smtp-frontd/smtp-frontd-pam \
	$(MODULES:%=$(B)/lib/smtp-frontd/%.so)
objects = $(patsubst %,$(B)/obj/%.o,$(1))

all: $(BIN)

$(B)/sbin/smtp-frontd: $(call objects,$(MAIN))
	@mkdir -p $(@D)
	@echo '  LD    $@'
	@$(CC) -pie $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ -lcares

$(B)/bin/smtp-frontd-passwd: $(call objects,$(PASSWD))
	@mkdir -p $(@D)
	@echo '  LD    $@'
	@$(CC) -pie $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ -lcrypto -lcrypt

$(B)/lib/smtp-frontd/smtp-frontd-pam: $(call objects,$(PAM_JUDGE))
	@mkdir -p $(@D)
	@echo '  LD    $@'
	@$(CC) -pie $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ -lpam

define module
$(B)/lib/smtp-frontd/$1.so: $(call objects,$($1_SRC))
	@mkdir -p $$(@D)
	@echo '  LD    $$@'
	@$$(CC) -shared $$(ALL_CFLAGS) $$(ALL_LDFLAGS) -o $$@ $$^ $($1_LIBS)
endef
$(foreach m,$(MODULES),$(eval $(call module,$m)))

$(B)/obj/%.o: %.c
	@mkdir -p $(@D)
	@echo '  CC    $@'
	@$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# Unit tests: the objects and libraries that tests/unit/t-NAME.c is linked with.
UNIT = \
	auth \
	auth-http \
	backend-tls \
	children \
	config \
	conn \
	counters \
	dns \
	dovecot \
	keeper \
	keeper-pool \
	listen-spec \
	log \
	message \
	network \
	oauth2 \
	passwd \
	peer \
	penalty \
	proxy \
	proxy-header \
	relay \
	sasl \
	sasl-scram \
	sasl-secret \
	scram \
	spawn \
	text \
	ticket \
	tls \
	tls-client \
	tls-names \
	upstream
t-text        = lib/text
t-ticket      = lib/ticket lib/runtime
t-message     = lib/message lib/text
t-log         = lib/log
t-conn        = lib/conn
t-dns         = lib/dns lib/dns_tlsa lib/text -lcares
t-config      = $(filter config%,$(MAIN)) lib/listen_spec lib/network lib/log lib/module lib/text
t-sasl        = sasl sasl_token lib/text
t-sasl-secret = $(sasl-secret_SRC) $(sasl-secret_LIBS)
t-scram       = lib/scram lib/text -lcrypto
t-sasl-scram  = $(sasl-secret_SRC) $(sasl-secret_LIBS)
t-auth        = auth lib/message lib/text
penalty_OBJ   = penalty penalty_file lib/runtime lib/siphash lib/source
t-penalty     = $(penalty_OBJ)
t-keeper      = keeper vault vault_tls lib/ticket vault_exchange vault_salt \
	vault_penalty $(penalty_OBJ) lib/network lib/sandbox lib/message lib/text lib/tls_load
t-passwd      = $(auth-file_SRC) $(auth-file_LIBS)
t-auth-http   = $(auth-http_SRC) $(auth-http_LIBS)
t-dovecot     = $(auth-dovecot_SRC) $(auth-dovecot_LIBS)
t-oauth2      = auth/oauth2_answer auth/oauth2_cache lib/text -ljansson -lcrypto
t-tls         = $(tls_SRC) $(tls_LIBS)
t-tls-client  = $(tls_SRC) $(tls_LIBS)
t-tls-names   = $(tls_SRC) $(tls_LIBS)
t-backend-tls = backend_tls keyring auth lib/conn lib/dns lib/dns_tlsa lib/message lib/module lib/text lib/tls_load -lcares
t-peer        = peer lib/text
t-relay       = relay lib/message lib/sandbox lib/text
t-upstream    = upstream lib/conn lib/message lib/text
t-proxy       = proxy lib/conn
t-children    = children lib/source
t-network     = lib/network lib/text
t-proxy-header = lib/proxy_header lib/proxy_header_write lib/crc32c lib/text
t-counters    = counters lib/source lib/text
t-listen-spec = lib/listen_spec lib/text
t-keeper-pool = keeper_pool lib/message lib/text
t-spawn       = lib/spawn

define unit
$(B)/tests/t-$1: $(call objects,tests/unit/t-$1 $(filter-out -%,$(t-$1)))
	@mkdir -p $$(@D)
	@echo '  LD    $$@'
	@$$(CC) -pie $$(ALL_CFLAGS) $$(ALL_LDFLAGS) -o $$@ $$^ \
	    $(filter -%,$(t-$1)) -lcmocka
endef
$(foreach t,$(UNIT),$(eval $(call unit,$t)))

-include $(patsubst %,$(B)/obj/%.d,$(SRC) $(UNIT:%=tests/unit/t-%))

.PHONY: all bench check check-unit clean install lint uninstall \
	unit-tests
.DELETE_ON_ERROR:
.SECONDARY:
check:
	./check --fast

unit-tests: $(UNIT:%=$(B)/tests/t-%)
check-unit: unit-tests
	@for t in $(UNIT:%=$(abspath $(B))/tests/t-%); do $$t || bad=1; done; \
	    [ -z "$$bad" ]

lint:
	tests/layers
	tests/lint

# The value of a variable, for tests/layers and tests/lint.
print-%:
	@echo '$($*)'

# Figures beside their yardsticks; `bench/setup` installs what they need.
bench: all
	CC='$(CC)' bench/run $(B)

clean:
	rm -rf $(B)

# Everything goes below DESTDIR. What is in ETCDIR is the administrator's.
D      = $(DESTDIR)
PORTS  = submission submissions mx
UNITS  = $(foreach p,$(PORTS),smtp-frontd-$p.socket smtp-frontd-$p@.service) \
	smtp-frontd.socket smtp-frontd-smtps.socket smtp-frontd.service \
	smtp-frontd-keeper.socket smtp-frontd-keeper.service
PAGES  = $(notdir $(wildcard man/*))
page   = $(D)$(MANDIR)/man$(subst .,,$(suffix $1))/$1

install: all
	@[ $(dir $(SBINDIR)) = $(dir $(LIBDIR)) ] || \
	    { echo 'SBINDIR and LIBDIR must be neighbours' >&2; exit 1; }
	install -d $(addprefix $(D),$(SBINDIR) $(BINDIR) $(LIBDIR)/smtp-frontd \
	    $(UNITDIR) $(SYSUSERSDIR) $(DOCDIR) $(ETCDIR)/smtp-frontd)
	install $(B)/sbin/smtp-frontd $(D)$(SBINDIR)
	install $(B)/bin/smtp-frontd-passwd $(D)$(BINDIR)
	install -m 644 $(B)/lib/smtp-frontd/*.so $(D)$(LIBDIR)/smtp-frontd
	install $(B)/lib/smtp-frontd/smtp-frontd-pam $(D)$(LIBDIR)/smtp-frontd
	$(foreach p,$(PAGES),install -D -m 644 man/$p $(call page,$p) &&) :
	install -m 644 $(UNITS:%=units/%) $(D)$(UNITDIR)
	install -m 644 units/smtp-frontd.sysusers $(D)$(SYSUSERSDIR)/smtp-frontd.conf
	install -m 644 README.md NEWS SECURITY.md LICENSE units/*.conf \
	    units/smtp-frontd.xinetd $(D)$(DOCDIR)
	install examples/* $(D)$(DOCDIR)
	sed -i 's|@SBINDIR@|$(SBINDIR)|' $(D)$(UNITDIR)/smtp-frontd*.service \
	    $(D)$(DOCDIR)/smtp-frontd.xinetd $(D)$(DOCDIR)/relay.conf
	for p in $(PORTS); do [ -e $(D)$(ETCDIR)/smtp-frontd/$$p.conf ] || \
	    install -m 640 units/$$p.conf $(D)$(ETCDIR)/smtp-frontd; done
	[ -e $(D)$(ETCDIR)/smtp-frontd/smtp-frontd.conf ] || \
	    install -m 644 units/smtp-frontd.conf $(D)$(ETCDIR)/smtp-frontd

uninstall:
	rm -f $(D)$(SBINDIR)/smtp-frontd $(D)$(BINDIR)/smtp-frontd-passwd \
	    $(foreach p,$(PAGES),$(call page,$p)) \
	    $(UNITS:%=$(D)$(UNITDIR)/%) $(D)$(SYSUSERSDIR)/smtp-frontd.conf
	rm -rf $(D)$(LIBDIR)/smtp-frontd $(D)$(DOCDIR)
